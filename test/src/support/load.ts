/** Writes that go on while something is broken, and the question whether each one that was acknowledged is there. */
import type * as Bdev from "@effect-spdk/core/Bdev"
import { isSpdkError } from "@effect-spdk/core/SpdkError"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { until, within } from "./harness.ts"

const workers = 8
const blocksEach = 16

export interface Load {
  /** Blocks whose last write was acknowledged with this version, or tried with it. */
  readonly acknowledged: Uint32Array
  readonly attempted: Uint32Array
  done: number
  failed: number
  /** The reasons of those that failed. */
  readonly reasons: Set<string>
}

const stamp = (blockSize: number, block: number, version: number): Uint8Array =>
  new Uint8Array(new Uint32Array(blockSize / 4).fill(((block << 20) | version) >>> 0).buffer)

/** Starts writing; `stop` waits for the answers of what is in flight. */
export const startLoad = (bdev: Bdev.Bdev) =>
  Effect.gen(function* () {
    const load: Load = {
      acknowledged: new Uint32Array(workers * blocksEach),
      attempted: new Uint32Array(workers * blocksEach),
      done: 0,
      failed: 0,
      reasons: new Set()
    }
    let running = true
    const write = (block: number) =>
      Effect.suspend(() => {
        const version = (load.attempted[block] ?? 0) + 1
        load.attempted[block] = version
        return Effect.map(
          Effect.exit(bdev.writeBytes(block * bdev.blockSize, stamp(bdev.blockSize, block, version))),
          (exit) => settle(load, block, version, exit)
        )
      })
    const worker = (first: number) =>
      Effect.gen(function* () {
        for (let turn = 0; running; turn++) {
          const failedBefore = load.failed
          yield* write(first + (turn % blocksEach))
          // A device that refuses at once would otherwise be asked as fast as it refuses.
          if (load.failed > failedBefore) yield* Effect.sleep("5 millis")
        }
      })
    const fibers = yield* Effect.forEach(Array.from({ length: workers }), (_, index) =>
      Effect.forkChild(worker(index * blocksEach), { startImmediately: true })
    )
    const stop = Effect.suspend(() => {
      running = false
      return within("the answers of what is in flight", Effect.asVoid(Fiber.awaitAll(fibers)), 40_000)
    })
    return { load, stop }
  })

const settle = (load: Load, block: number, version: number, exit: Exit.Exit<void, unknown>): void => {
  if (Exit.isSuccess(exit)) {
    load.done++
    load.acknowledged[block] = version
    return
  }
  load.failed++
  const reason = exit.cause.reasons.find((one) => one._tag === "Fail")
  load.reasons.add(reason !== undefined && isSpdkError(reason.error) ? reason.error.reason._tag : "no SpdkError")
}

/** Waits for so many more writes to be acknowledged. */
export const progress = ({ load }: { readonly load: Load }, more: number) =>
  Effect.suspend(() => {
    const wanted = load.done + more
    return until(
      `${more} more writes are acknowledged`,
      Effect.andThen(
        Effect.sleep("5 millis"),
        Effect.sync(() => load.done >= wanted)
      ),
      30_000
    )
  })

/** Each block holds the write that was acknowledged last, or a later one that was tried. */
export const verifyLoad = (load: Load, bdev: Bdev.Bdev) =>
  Effect.gen(function* () {
    assert.isAbove(load.done, 0)
    const bytes = yield* bdev.readBytes(0, workers * blocksEach * bdev.blockSize)
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
    const perBlock = bdev.blockSize / 4
    for (let block = 0; block < workers * blocksEach; block++) {
      const first = words[block * perBlock] ?? 0
      for (let at = 1; at < perBlock; at++)
        assert.strictEqual(words[block * perBlock + at], first, `block ${block} is torn`)
      const acknowledged = load.acknowledged[block] ?? 0
      if (first === 0 && acknowledged === 0) continue
      assert.strictEqual(first >>> 20, block, `block ${block} holds another one`)
      const version = first & 0xfffff
      assert.isAtLeast(version, acknowledged, `block ${block}: an acknowledged write is lost`)
      assert.isAtMost(version, load.attempted[block] ?? 0)
    }
  })
