/**
 * Builds the engine with one JSON configuration in the main thread and in three worker threads at once: all of them see the bdev
 * that the configuration makes. Then a worker asks for another configuration, and what becomes of it is printed.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import { isSpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads"
import { engineLayer } from "./layers.ts"

const configOf = (name: string) => ({
  subsystems: [
    {
      subsystem: "bdev",
      config: [{ method: "bdev_malloc_create", params: { name, num_blocks: 64, block_size: 512 } }]
    }
  ]
})

/** `opened`, or why not. */
const tryToOpen = (engine: string, name: string): Promise<string> =>
  Bdev.open(name).pipe(
    Effect.as("opened"),
    Effect.scoped,
    Effect.provide(engineLayer(engine, { config: configOf(name) })),
    Effect.catch((error) => Effect.succeed(isSpdkError(error) ? error.message : String(error))),
    Effect.runPromise
  )

const inWorker = (engine: string, name: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { engine, name } })
    worker.on("message", (said) => resolve(String(said)))
    worker.on("error", reject)
    worker.on("exit", (code) => reject(new Error(`a worker ended with ${code} before it said anything`)))
  })

if (isMainThread) {
  const [engine = "embedded"] = process.argv.slice(2)
  const others = ["a", "b", "c"].map(() => inWorker(engine, "configured"))
  const said = await Promise.all([tryToOpen(engine, "configured"), ...others])
  console.log(`same: ${said.join(", ")}`)
  console.log(`once more: ${await tryToOpen(engine, "configured")}`)
  console.log(`other: ${await inWorker(engine, "another")}`)
} else {
  // This file wrote it.
  const { engine, name } = workerData as { readonly engine: string; readonly name: string }
  parentPort?.postMessage(await tryToOpen(engine, name))
}
