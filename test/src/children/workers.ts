/**
 * Loads an engine in the main thread and in three worker threads at once, does I/O in all of them, and ends. `way`
 * says how the workers end: `end` by themselves, `terminate` in the middle of their I/O.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads"
import { pattern } from "../support/bytes.ts"
import { engineLayer } from "./layers.ts"

const readsBackWhatItWrote = (name: string, rounds: number, onRound: () => void) =>
  Effect.gen(function* () {
    const created = yield* Bdev.createMalloc({ name, blockSize: 512, numBlocks: 256 })
    const bdev = yield* Bdev.open(created, { write: true })
    for (let round = 0; round < rounds; round++) {
      const bytes = pattern(4096, round)
      yield* bdev.writeBytes((round % 32) * 4096, bytes)
      const read = yield* bdev.readBytes((round % 32) * 4096, 4096)
      if (Buffer.compare(read, bytes) !== 0)
        return yield* Effect.die(new Error(`${name} read other bytes in round ${round}`))
      onRound()
    }
  }).pipe(Effect.scoped)

const inWorker = async (): Promise<void> => {
  const { engine, name, rounds } = workerData as {
    readonly engine: string
    readonly name: string
    readonly rounds: number
  }
  let told = false
  const tell = () => {
    if (!told) parentPort?.postMessage("running")
    told = true
  }
  await Effect.runPromise(readsBackWhatItWrote(name, rounds, tell).pipe(Effect.provide(engineLayer(engine))))
  parentPort?.postMessage("done")
}

const messages = (worker: Worker, wanted: string): Promise<void> =>
  new Promise((resolve, reject) => {
    worker.on("message", (message) => message === wanted && resolve())
    worker.on("error", reject)
    worker.on("exit", (code) => reject(new Error(`a worker ended with ${code} before it said ${wanted}`)))
  })

const inMain = async (): Promise<void> => {
  const [engine = "embedded", way = "end"] = process.argv.slice(2)
  const rounds = way === "terminate" ? 100_000_000 : 200
  const workers = ["a", "b", "c"].map(
    (name) => new Worker(fileURLToPath(import.meta.url), { workerData: { engine, name: `worker_${name}`, rounds } })
  )
  // From the start: what a worker says before somebody listens is lost.
  const said = workers.map((worker) => messages(worker, way === "terminate" ? "running" : "done"))
  const mine = Effect.runPromise(
    Effect.gen(function* () {
      const spdk = yield* Spdk.Spdk
      const before = yield* spdk.usage
      yield* readsBackWhatItWrote("main", 200, () => {})
      yield* Effect.promise(() => Promise.all(said))
      if (way === "terminate") {
        yield* Effect.promise(() => Promise.all(workers.map((worker) => worker.terminate())))
        // Nothing of the workers may be in the way of the main thread.
        yield* readsBackWhatItWrote("afterwards", 200, () => {})
      }
      const after = yield* spdk.usage
      if (after.descriptors !== before.descriptors || after.requestsInFlight !== before.requestsInFlight) {
        return yield* Effect.die(new Error(`left over: ${JSON.stringify(after)}`))
      }
    }).pipe(Effect.provide(engineLayer(engine)))
  )
  await mine
  console.log("all done")
}

await (isMainThread ? inMain() : inWorker())
