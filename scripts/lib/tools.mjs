/** Finds the command-line tools that the lockfile pins. */
import { readFileSync, realpathSync } from "node:fs"
import { join } from "node:path"
import { inRoot } from "./exec.mjs"

/** The JavaScript entry of a tool, installed for the package in `folder` (the repository itself by default). */
export const toolEntry = (packageName, binName = packageName, folder = inRoot()) => {
  const home = realpathSync(join(folder, "node_modules", packageName))
  const { bin } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"))
  return join(home, typeof bin === "string" ? bin : bin[binName])
}
