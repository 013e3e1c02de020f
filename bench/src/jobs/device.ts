/** Engines and bdevs for the jobs. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { spawnSync } from "node:child_process"
import type { BdevSpec, Engine } from "../Job.ts"
import { findProgram } from "../onPath.ts"
import { javaScriptCore, reactorCore } from "../spawn.ts"

const memoryMiB = 512
const blockSize = 4096

/** The last line of standard output is the answer: nothing else may be on it. */
const quiet = Logger.layer([])

export const engineLayer = (
  engine: Engine,
  options: { readonly polling?: "adaptive" | "busy"; readonly core?: number } = {}
) =>
  (engine === "embedded"
    ? Spdk.layerEmbedded({ name: "bench", memoryMiB })
    : Spdk.layer({
        name: "bench",
        memoryMiB,
        cores: `[${options.core ?? reactorCore}]`,
        polling: options.polling ?? "adaptive",
        logLevel: "error"
      })
  ).pipe(Layer.provideMerge(quiet))

/** Moves this thread, and no other of the process, to a core. */
export const placeThread = (core: number) =>
  Effect.sync(() => {
    const taskset = findProgram("taskset")
    if (taskset === undefined || javaScriptCore === reactorCore) return
    spawnSync(taskset, ["-c", "-p", String(core), String(process.pid)])
  })

export const placeJavaScript = placeThread(javaScriptCore)

/**
 * Writes all of a bdev. Memory that nobody has written yet is one page of zeroes to the system, which would be read out of
 * the processor's first cache.
 */
const written = (name: string) =>
  Effect.scoped(Effect.flatMap(Bdev.open(name, { write: true }), (bdev) => bdev.writeZeroes(0, bdev.sizeBytes)))

const create = (spec: BdevSpec) => {
  const numBlocks = spec.sizeBytes / blockSize
  switch (spec.type) {
    case "malloc":
      return Effect.tap(Bdev.createMalloc({ name: "bench", blockSize, numBlocks }), written)
    case "null":
      return Bdev.createNull({ name: "bench", blockSize, numBlocks })
    case "file":
      return Bdev.createFile({ name: "bench", blockSize, path: spec.path })
    case "new-file":
      return Bdev.createFile({ name: "bench", blockSize, path: spec.path, size: spec.sizeBytes, create: "always" })
    case "lvol":
      return Effect.die("lvols are for bdevperf")
  }
}

/** Creates the bdev, and places the JavaScript thread once the engine runs. */
export const createBdev = (spec: BdevSpec) => Effect.andThen(placeJavaScript, create(spec))

export const openBdev = (spec: BdevSpec) => Effect.flatMap(createBdev(spec), (name) => Bdev.open(name))
