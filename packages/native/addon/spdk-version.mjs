// Which SPDK pkg-config names, and whether it is new enough: asked of its headers, because SPDK's .pc files carry the versions of
// its single libraries.
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"

/**
 * The oldest version that the whole libspdk suite was run on. spdk_headers.h checks the same. On 24.09 the addon builds and starts,
 * but that version's NVMe/TCP host does not answer requests whose target falls silent, and scopes wait for them.
 */
export const oldest = { major: 25, minor: 9 }

export const show = ({ major, minor }) => `${major}.${String(minor).padStart(2, "0")}`

/** `{ major, minor }` of the headers, undefined when pkg-config names no folder that has them. */
export const installed = () => {
  const flags = execFileSync("pkg-config", ["--cflags-only-I", "spdk_event"], { encoding: "utf8" })
  const folders = flags
    .split(/\s+/)
    .filter((flag) => flag.startsWith("-I"))
    .map((flag) => flag.slice(2))
  // pkg-config leaves the compiler's own folders out.
  for (const folder of [...folders, "/usr/include", "/usr/local/include"]) {
    const version = read(join(folder, "spdk", "version.h"))
    if (version !== undefined) return version
  }
  return undefined
}

const read = (path) => {
  let text
  try {
    text = readFileSync(path, "utf8")
  } catch {
    return undefined
  }
  const number = (name) => Number(new RegExp(`#define\\s+SPDK_VERSION_${name}\\s+(\\d+)`).exec(text)?.[1])
  const version = { major: number("MAJOR"), minor: number("MINOR") }
  return Number.isNaN(version.major) || Number.isNaN(version.minor) ? undefined : version
}

export const isTooOld = (version) =>
  version.major < oldest.major || (version.major === oldest.major && version.minor < oldest.minor)
