/**
 * Leaves a process with I/O in flight, in the way its second argument says: `end`, `exit`, `throw`, `reject`,
 * `interrupt` (waits for SIGINT), `abandon` (no scope is ever closed).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { engineLayer } from "./layers.ts"

const [engine, way] = process.argv.slice(2)

let tellInFlight = (): void => {}
const isInFlight = new Promise<void>((resolve) => (tellInFlight = resolve))

const program = Effect.gen(function* () {
  const base = yield* Bdev.createMalloc({ name: "base", blockSize: 512, numBlocks: 8192 })
  // Long enough to be in flight whatever is done now, short enough to be waited for.
  const micros = 400_000
  const slow = yield* Bdev.createDelay({
    base: base,
    name: "slow",
    readMicros: micros,
    writeMicros: micros
  })
  const thread = yield* SpdkThread.spawn({ name: "leaving" })
  const bdev = yield* Bdev.open(slow, { write: true })
  const quick = yield* Bdev.open(base)
  const buffer = yield* DmaBuffer.make(512 * 1024)
  const slowReads = yield* Effect.forEach(Array.from({ length: 500 }), (_, index) => {
    const read = bdev.read(index * 512, buffer.slice(index * 512, 512))
    return Effect.forkChild(index % 2 === 0 ? read : read.pipe(SpdkThread.on(thread)), { startImmediately: true })
  })
  // Some that never stop being submitted.
  yield* Effect.forkChild(Effect.forever(quick.read(0, buffer.slice(0, 512))), { startImmediately: true })
  yield* Effect.sleep("20 millis")
  yield* Effect.sync(() => console.log("in flight"))
  tellInFlight()
  switch (way) {
    case "end":
      return
    case "exit":
      return yield* Effect.sync(() => process.exit(3))
    case "throw":
      setImmediate(() => {
        throw new Error("thrown on purpose")
      })
      return yield* Effect.never
    case "reject":
      setImmediate(() => void Promise.reject(new Error("rejected on purpose")))
      return yield* Effect.never
    default:
      return yield* Effect.andThen(Fiber.joinAll(slowReads), Effect.never)
  }
}).pipe(Effect.scoped, Effect.ensuring(Effect.sync(() => console.log("released"))), Effect.provide(engineLayer(engine)))

if (way === "abandon") {
  // Nobody waits for it and nobody interrupts it: the process ends under it.
  Effect.runFork(program)
  await isInFlight
  process.exit(0)
} else NodeRuntime.runMain(program)
