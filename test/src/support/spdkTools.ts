/** SPDK's own programs, which tests run as peers: where they are, or why there is none. Not every installation carries all of them. */
import { describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"

export interface SpdkTool {
  /** The path to run. The bare name where the program is missing. */
  readonly path: string
  /** Why the program is not there; undefined when it is. `scripts/lib/summary.mjs` knows a missing tool by this wording. */
  readonly missing: string | undefined
}

/** PATH, then the programs beside the SPDK that pkg-config names: an installation's `bin` need not be in PATH. */
const directories: ReadonlyArray<string> = (() => {
  const inPath = (process.env["PATH"] ?? "").split(delimiter).filter((directory) => directory !== "")
  const found = spawnSync("pkg-config", ["--variable=pcfiledir", "spdk_event"], { encoding: "utf8" })
  const folder = found.status === 0 ? found.stdout.trim() : ""
  return folder === "" ? inPath : [...inPath, join(folder, "..", "..", "bin")]
})()

/** The program of that name. */
export const spdkTool = (name: string): SpdkTool => {
  const path = directories.map((directory) => join(directory, name)).find((candidate) => existsSync(candidate))
  return path === undefined
    ? { path: name, missing: `no ${name} in PATH or beside SPDK` }
    : { path, missing: undefined }
}

/** rpc.py is a Python program: one that does not start, for want of its modules, counts as missing. */
export const rpcPyTool: SpdkTool = (() => {
  const tool = spdkTool("rpc.py")
  if (tool.missing !== undefined || spawnSync(tool.path, ["--help"]).status === 0) return tool
  return { path: tool.path, missing: "no rpc.py that starts" }
})()

/** The title of a test or a suite that needs the tool. */
export const titled = (title: string, { missing }: SpdkTool): string =>
  missing === undefined ? title : `${title} [skipped: ${missing}]`

/** Registers a suite that needs the tool, or one skipped test that carries the suite's name and the reason. */
export const withTool = (tool: SpdkTool, name: string, register: () => void): void => {
  if (tool.missing === undefined) register()
  else describe(titled(name, tool), () => it.skip(`skipped: ${tool.missing}`, () => {}))
}
