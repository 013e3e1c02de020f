/** SPDK's programs ask for hugepages, and some have no option for less: a preloaded library says so for them. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { scratch } from "./engines.ts"

/** The library for LD_PRELOAD; undefined where there is no C compiler. */
export const noHugepages = (): string | undefined => {
  const library = join(scratch, "noHugepages.so")
  const source = fileURLToPath(new URL("../../src/support/noHugepages.c", import.meta.url))
  const flags = spawnSync("pkg-config", ["--cflags", "spdk_event"], { encoding: "utf8" })
  const options = ["-D_GNU_SOURCE", "-shared", "-fPIC", ...(flags.stdout ?? "").trim().split(/\s+/).filter(Boolean)]
  const built = spawnSync("cc", [...options, "-o", library, source, "-ldl"], { encoding: "utf8" })
  return built.status === 0 ? library : undefined
}
