/** What a figure depends on and a reader must know. */
import { readFileSync } from "node:fs"
import { arch, cpus, release, totalmem, type } from "node:os"
import { createRequire } from "node:module"
import * as Bdevperf from "./Bdevperf.ts"

const versionOf = (name: string): string => {
  const manifest: unknown = createRequire(import.meta.url)(`${name}/package.json`)
  return typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "?"
}

const virtualised = (): string => {
  try {
    return /^flags.*\bhypervisor\b/m.test(readFileSync("/proc/cpuinfo", "utf8")) ? ", virtual machine" : ""
  } catch {
    return ""
  }
}

/** Lines for the table's head and the picture's foot. */
export const describe = async (libspdk: string): Promise<ReadonlyArray<string>> => {
  const processors = cpus()
  const model = processors[0]?.model.trim() ?? arch()
  const memoryGiB = Math.round(totalmem() / 2 ** 30)
  return [
    `${processors.length} × ${model}${virtualised()}, ${memoryGiB} GiB, ${type()} ${release()}`,
    `Node ${process.version}, effect ${versionOf("effect")}, effect-spdk ${versionOf("@effect-spdk/core")}`,
    `libspdk: ${libspdk}; bdevperf: ${(await Bdevperf.version()) ?? Bdevperf.whereLooked}`
  ]
}
