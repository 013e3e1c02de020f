/**
 * Writes blocks to a file bdev in the order that a seed gives, flushes now and then, and says after each flush up to
 * which write everything is safe. It never ends by itself: the test kills it.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import { writeSync } from "node:fs"
import { durableBlocks, durableBlockSize, durableScript, stampBlock } from "../support/durable.ts"
import { engineLayer } from "./layers.ts"

const [engine, path = "", seed = "0", steps = "Infinity"] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const name = yield* Bdev.createFile({
    name: "durable",
    path,
    blockSize: durableBlockSize,
    size: durableBlocks * durableBlockSize
  })
  const bdev = yield* Bdev.open(name, { write: true })
  const width = 32
  const buffer = yield* DmaBuffer.make(width * durableBlockSize)
  const script = durableScript(Number(seed))
  let step = 0
  while (step < Number(steps)) {
    // As many writes at once as there are slices, all to different blocks; then perhaps a flush.
    const group = script.next(width)
    const last = step + group.blocks.length
    yield* Effect.forEach(
      group.blocks,
      (block, index) => {
        const slice = buffer.slice(index * durableBlockSize, durableBlockSize)
        stampBlock(slice.bytes, block, step + index + 1)
        return bdev.write(block * durableBlockSize, slice)
      },
      { concurrency: "unbounded", discard: true }
    )
    step = last
    if (group.flush) {
      yield* bdev.flush()
      // Synchronous, so that the line is out before the next write begins.
      yield* Effect.sync(() => writeSync(1, `flushed ${step}\n`))
    }
  }
}).pipe(Effect.scoped, Effect.provide(engineLayer(engine)))

NodeRuntime.runMain(program)
