/**
 * Heap allocations of a process, by thread. A small library of ours (bench/native) stands in front of libc's
 * malloc in the measured process and counts; it is compiled when it is needed.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { findProgram } from "./onPath.ts"
import { run } from "./spawn.ts"

const source = fileURLToPath(new URL("../native/count_allocations.c", import.meta.url))
const countersVariable = "EFFECT_SPDK_ALLOCATIONS"
const pairs = 256
const bytesPerPair = 16
const compileMillis = 60_000

const compilers = ["cc", "gcc", "clang"]

const compile = async (target: string): Promise<void> => {
  const compiler = compilers.map((name) => findProgram(name)).find((path) => path !== undefined)
  if (compiler === undefined) throw new Error(`counting allocations needs a C compiler: ${compilers.join(", ")}`)
  await run(compiler, ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source], {
    limitMillis: compileMillis
  })
}

/** LD_PRELOAD separates its paths by spaces and colons. */
const preloadableFolder = (): string => (/[\s:]/.test(tmpdir()) ? "/tmp" : tmpdir())

/** Runs `body` with the environment in which a process counts. */
export const withCounter = async <A>(body: (env: Readonly<Record<string, string>>) => Promise<A>): Promise<A> => {
  const folder = mkdtempSync(join(preloadableFolder(), "effect-spdk-allocations-"))
  try {
    const library = join(folder, "count_allocations.so")
    const counters = join(folder, "counters")
    await compile(library)
    writeFileSync(counters, new Uint8Array(pairs * bytesPerPair))
    return await body({ LD_PRELOAD: library, [countersVariable]: counters })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export interface ThreadCount {
  readonly threadId: number
  readonly name: string
  readonly allocations: number
}

const threadName = (threadId: number): string => {
  try {
    return readFileSync(`/proc/self/task/${threadId}/comm`, "utf8").trim()
  } catch {
    return "ended"
  }
}

/** In a measured process: what each of its threads has allocated so far. */
export const read = (): ReadonlyArray<ThreadCount> => {
  const path = process.env[countersVariable]
  if (path === undefined) throw new Error("this process does not count its allocations")
  const bytes = readFileSync(path)
  const counts: Array<ThreadCount> = []
  for (let at = 0; at < bytes.length; at += bytesPerPair) {
    const threadId = Number(bytes.readBigUInt64LE(at))
    if (threadId !== 0) {
      counts.push({ threadId, name: threadName(threadId), allocations: Number(bytes.readBigUInt64LE(at + 8)) })
    }
  }
  return counts
}
