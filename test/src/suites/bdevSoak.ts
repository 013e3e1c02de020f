/**
 * A million I/Os (20,000 in the short slice) whose fibers are interrupted at random: each ends once, as a success with
 * the right bytes, or interrupted; DMA bytes, slots and requests are back where they were.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { type Capabilities, type EngineLayer, long } from "../support/engines.ts"
import { blockSize, contract, fresh, leavesNothing, sameBytes, turn } from "../support/harness.ts"
import { type RandomSource, seeded } from "../support/random.ts"

const total = long ? 1_000_000 : 20_000
const lanes = 64
const blocksPerLane = 32

/** A block that says which lane, block and version it holds. */
const stamp = (bytes: Uint8Array, lane: number, block: number, version: number): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, blockSize)
  for (let at = 0; at < blockSize; at += 16) {
    view.setUint32(at, lane, true)
    view.setUint32(at + 4, block, true)
    view.setUint32(at + 8, version, true)
    view.setUint32(at + 12, (lane * 31 + block * 17 + version) >>> 0, true)
  }
}

interface Tally {
  started: number
  ended: number
  interrupted: number
  completed: number
}

/**
 * One lane owns its blocks. A write that was interrupted may have happened or not, so a block is allowed every version
 * from the last write that completed on.
 */
const lane = (index: number, ios: number, bdev: Bdev.Bdev, random: RandomSource, tally: Tally) =>
  Effect.gen(function* () {
    const buffer = yield* DmaBuffer.make(blockSize)
    const certain = new Uint32Array(blocksPerLane)
    const possible = new Uint32Array(blocksPerLane)
    const check = (block: number): void => {
      const version = new DataView(buffer.bytes.buffer, buffer.bytes.byteOffset).getUint32(8, true)
      if (version === 0) {
        assert.strictEqual(certain[block], 0, `block ${block} of lane ${index} lost version ${certain[block]}`)
        return
      }
      const expected = new Uint8Array(blockSize)
      stamp(expected, index, block, version)
      sameBytes(buffer.bytes, expected, `block ${block} of lane ${index}, version ${version}`)
      assert.isAtLeast(version, certain[block] ?? 0)
      assert.isAtMost(version, possible[block] ?? 0)
      // What was seen once stays.
      certain[block] = version
    }
    for (let io = 1; io <= ios; io++) {
      const block = random.below(blocksPerLane)
      const offset = (index * blocksPerLane + block) * blockSize
      const writes = random.chance(0.5)
      if (writes) {
        stamp(buffer.bytes, index, block, io)
        possible[block] = io
      }
      tally.started++
      const operation = Effect.ensuring(
        writes ? bdev.write(offset, buffer) : bdev.read(offset, buffer),
        Effect.sync(() => void tally.ended++)
      )
      if (random.chance(0.6)) {
        yield* operation
        tally.completed++
        if (writes) certain[block] = io
        else check(block)
        continue
      }
      const fiber = yield* Effect.forkChild(operation, { startImmediately: true })
      for (let pause = random.below(4); pause > 0; pause--) yield* random.chance(0.2) ? turn : Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      if (buffer.pins !== 0) assert.fail(`a fiber ended while a device holds its memory, in lane ${index}`)
      if (Exit.isSuccess(exit)) {
        tally.completed++
        if (writes) certain[block] = io
        else check(block)
      } else {
        if (!Cause.hasInterruptsOnly(exit.cause)) assert.fail(Cause.pretty(exit.cause))
        tally.interrupted++
      }
    }
    for (let block = 0; block < blocksPerLane; block++) {
      yield* bdev.read((index * blocksPerLane + block) * blockSize, buffer)
      check(block)
    }
  }).pipe(Effect.scoped)

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check(
      `${total} I/Os with fibers interrupted at random`,
      () =>
        leavesNothing(
          seeded((random) =>
            Effect.gen(function* () {
              const spdk = yield* Spdk.Spdk
              // Not the disk itself: there is nothing to interrupt where memory answers at once.
              const created = yield* Bdev.createPassthru({
                name: fresh("soaked"),
                base: yield* Bdev.createMalloc({ blockSize, numBlocks: lanes * blocksPerLane })
              })
              const thread = yield* SpdkThread.spawn({ name: fresh("soak") })
              const bdev = yield* Bdev.open(created, { write: true })
              const tally: Tally = { started: 0, ended: 0, interrupted: 0, completed: 0 }
              const before = yield* spdk.usage
              yield* Effect.forEach(
                Array.from({ length: lanes }),
                (_, index) => {
                  const work = lane(index, Math.ceil(total / lanes), bdev, random, tally)
                  return index % 2 === 0 ? work : work.pipe(SpdkThread.on(thread))
                },
                { concurrency: "unbounded", discard: true }
              )
              assert.isAtLeast(tally.started, total)
              assert.strictEqual(tally.ended, tally.started, "each I/O ended once")
              assert.strictEqual(tally.completed + tally.interrupted, tally.started)
              assert.isAbove(tally.interrupted, tally.started / 50, "interruptions hit")
              assert.isAbove(tally.completed, tally.started / 50)
              const after = yield* spdk.usage
              assert.strictEqual(after.dmaBytes, before.dmaBytes)
              assert.strictEqual(after.slabs, before.slabs)
              assert.strictEqual(after.requestsInFlight, before.requestsInFlight)
            })
          )
        ),
      { timeoutMillis: long ? 1_800_000 : 60_000 }
    )
  })
