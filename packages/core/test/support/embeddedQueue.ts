/** What the tests of an embedded engine's queue start from, and how it says no. */
import * as Effect from "effect/Effect"
import { type Ended, makeEngine, malloc, open, slab } from "./embeddedEngine.ts"

export const refused = (errno: number, detail: number): Ended => ({ status: -errno, detail, nvme: 0 })
export const EBADF = 9
export const EFAULT = 14
export const ENODEV = 19
export const EINVAL = 22
export const ENOTSUP = 95
export const ECANCELED = 125

/** A malloc disk open twice, a null disk, and memory. */
export const world = Effect.gen(function* () {
  const engine = yield* makeEngine()
  yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
  yield* engine.rpc.call("bdev_null_create", { name: "n", num_blocks: 64, block_size: 512 })
  const disk = yield* open(engine, "m")
  const readOnly = yield* open(engine, "m", { write: false })
  const nullDisk = yield* open(engine, "n")
  const memory = yield* slab(engine, 4096, 4096)
  return { engine, queue: engine.mainThread.queue, disk, readOnly, nullDisk, memory }
})

export type World = Effect.Success<typeof world>
