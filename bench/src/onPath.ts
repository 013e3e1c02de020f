/** Programs that the bench uses where they are installed. */
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The first program of this name in the folders given and on PATH. */
export const findProgram = (name: string, folders: ReadonlyArray<string> = []): string | undefined =>
  [...folders, ...(process.env["PATH"] ?? "").split(delimiter)]
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find(isExecutable)
