/** One seed decides everything, and a simulated disk loses what nobody flushed. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Bdev from "../src/Bdev.ts"
import * as DmaBuffer from "../src/DmaBuffer.ts"
import * as SimulatedDisk from "../src/SimulatedDisk.ts"
import * as Simulation from "../src/Simulation.ts"
import * as Spdk from "../src/Spdk.ts"
import type { EngineService } from "../src/Engine.ts"

const sizeBytes = 64 * 1024
const sector = 512

const withBdev = <A, E>(
  disk: SimulatedDisk.SimulatedDisk,
  use: (bdev: Bdev.Bdev) => Effect.Effect<A, E, EngineService | Scope.Scope>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const bdev = yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write: true })
      return yield* use(bdev)
    })
  ).pipe(Effect.provide(Spdk.layerEmbedded()))

const setup = (seed: number, faults: Partial<SimulatedDisk.Faults> = {}) => {
  const simulation = Simulation.make({ seed })
  const disk = SimulatedDisk.make(simulation, { sizeBytes, faults })
  return { simulation, disk }
}

const filled = (value: number, sectors = 1): Uint8Array => new Uint8Array(sectors * sector).fill(value)

const succeeded = <A, E>({ ending, exit }: Simulation.Outcome<A, E>): A => {
  assert.strictEqual(ending, "done")
  if (exit?._tag !== "Success") throw new Error(`the program failed: ${String(exit?.cause)}`)
  return exit.value
}

/** Several fibers that write, read and flush, with faults. */
const busy = (seed: number): string => {
  const { disk, simulation } = setup(seed, { error: 0.05, retry: 0.05, delay: 0.05 })
  const worker = (bdev: Bdev.Bdev, index: number) =>
    Effect.gen(function* () {
      for (let i = 0; i < 6; i++) {
        yield* Effect.exit(bdev.writeBytes((index * 8 + i) * sector, filled(i + 1, 2)))
        yield* Effect.sleep("3 millis")
        yield* Effect.exit(bdev.flush())
        yield* Effect.exit(bdev.readBytes(index * 8 * sector, sector))
      }
    })
  const outcome = simulation.run(
    withBdev(disk, (bdev) => Effect.forEach([0, 1, 2, 3], (i) => worker(bdev, i), { concurrency: 4, discard: true }))
  )
  succeeded(outcome)
  assert.deepStrictEqual(outcome.left, { tasks: 0, timers: 0 })
  assert.strictEqual(disk.inFlight, 0)
  return `${simulation.trace} ${simulation.steps} ${simulation.nowMicros()}`
}

describe("a simulation", () => {
  it("runs the same for the same seed, and otherwise for others", () => {
    const traces = new Set<string>()
    for (let seed = 0; seed < 20; seed++) {
      const trace = busy(seed)
      assert.strictEqual(busy(seed), trace)
      traces.add(trace)
    }
    assert.strictEqual(traces.size, 20)
  })

  it("lets virtual time go by at once", () => {
    const simulation = Simulation.make({ seed: 1 })
    const before = performance.now()
    const passed = succeeded(
      simulation.run(
        Effect.gen(function* () {
          const start = yield* Clock.currentTimeMillis
          yield* Effect.sleep("40 minutes")
          return (yield* Clock.currentTimeMillis) - start
        })
      )
    )
    assert.strictEqual(passed, 40 * 60 * 1000)
    assert.isBelow(performance.now() - before, 10_000)
  })

  it("says when nothing can go on, when time is over, and when a program never stops", () => {
    const make = () => Simulation.make({ seed: 3 })
    assert.strictEqual(make().run(Effect.never).ending, "deadlock")
    assert.strictEqual(make().run(Effect.sleep("2 hours"), { maxTime: "1 hour" }).ending, "late")
    assert.strictEqual(make().run(Effect.forever(Effect.yieldNow), { maxSteps: 1000 }).ending, "endless")
  })

  it("picks who is next, so that a lost update shows in some seeds and not in others", () => {
    const lost = (seed: number): boolean => {
      let counter = 0
      const add = Effect.gen(function* () {
        const seen = counter
        yield* Effect.suspend(() => Effect.suspend(() => Effect.void))
        counter = seen + 1
      })
      succeeded(
        Simulation.make({ seed, yieldChance: 0.1 }).run(Effect.all([add, add], { concurrency: 2, discard: true }))
      )
      return counter < 2
    }
    const found = Array.from({ length: 200 }, (_, seed) => lost(seed)).filter(Boolean).length
    assert.isAbove(found, 0)
    assert.isBelow(found, 200)
  })

  it("lets no fiber go on after it was stopped", () => {
    const simulation = Simulation.make({ seed: 5 })
    let wentOn = false
    const outcome = simulation.run(
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.sleep("1 second"))
        yield* Effect.sync(simulation.stop)
        yield* Fiber.join(fiber)
        wentOn = true
      }).pipe(Effect.ensuring(Effect.sync(() => (wentOn = true))))
    )
    assert.strictEqual(outcome.ending, "stopped")
    assert.isUndefined(outcome.exit)
    succeeded(simulation.run(Effect.sleep("1 minute")))
    assert.isFalse(wentOn)
  })

  it("fails allocations of memory when asked to", () => {
    const { disk, simulation } = setup(1)
    simulation.memoryFailureChance = 1
    const outcome = simulation.run(
      withBdev(disk, (bdev) => Effect.flip(bdev.readBytes(0, sector))).pipe(Effect.map(({ reason }) => reason._tag))
    )
    assert.strictEqual(succeeded(outcome), "NoMemory")
  })
})

describe("a simulated disk", () => {
  /** Writes 1 and flushes, then writes 2 and 3, and loses its power. What the first 16 sectors hold. */
  const afterCut = (seed: number, keep?: number): ReadonlyArray<number> => {
    const { disk, simulation } = setup(seed)
    const outcome = simulation.run(
      withBdev(disk, (bdev) =>
        Effect.gen(function* () {
          yield* bdev.writeBytes(0, filled(1, 16))
          yield* bdev.flush()
          yield* bdev.writeBytes(0, filled(2, 16))
          yield* bdev.writeBytes(0, filled(3, 16))
          assert.strictEqual((yield* bdev.readBytes(0, sector))[0], 3)
          yield* Effect.sync(() => disk.cutPower(keep))
          return yield* Effect.never
        })
      )
    )
    assert.strictEqual(outcome.ending, "stopped")
    const contents = disk.contents()
    assert.deepStrictEqual(contents, disk.durableContents())
    return Array.from({ length: 16 }, (_, i) => {
      const bytes = contents.subarray(i * sector, (i + 1) * sector)
      assert.isTrue(bytes.every((byte) => byte === bytes[0]))
      return bytes[0] ?? 0
    })
  }

  it("keeps after a power cut what was flushed, and of the rest any sector in any of its contents", () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < 30; seed++) {
      const kept = afterCut(seed)
      assert.isTrue(kept.every((value) => value >= 1 && value <= 3))
      seen.add(String(kept))
    }
    assert.isAbove(seen.size, 10)
    assert.deepStrictEqual(afterCut(1, 1), new Array(16).fill(3))
  })

  it("keeps what had completed when only the process is killed, and is used by the next", () => {
    const { disk, simulation } = setup(2)
    simulation.run(
      withBdev(disk, (bdev) =>
        Effect.andThen(bdev.writeBytes(0, filled(7, 4)), Effect.andThen(Effect.sync(disk.killProcess), Effect.never))
      )
    )
    const bytes = succeeded(simulation.run(withBdev(disk, (bdev) => bdev.readBytes(0, 4 * sector))))
    assert.deepStrictEqual(bytes, filled(7, 4))
  })

  it("gets nothing of what a machine submits after it has stopped", () => {
    const { disk, simulation } = setup(3)
    disk.onRequest = ({ number }) => (number === 2 ? { _tag: "Cut" } : undefined)
    const writes = (bdev: Bdev.Bdev) =>
      Effect.gen(function* () {
        const buffer = yield* DmaBuffer.make(sector)
        buffer.bytes.fill(7)
        yield* bdev.writeBatch([0, 1, 2, 3].map((i) => ({ offsetBytes: i * sector, buffer })))
      })
    assert.strictEqual(simulation.run(withBdev(disk, writes)).ending, "stopped")
    assert.strictEqual(disk.requests, 2)
    assert.strictEqual(disk.inFlight, 0)
  })

  it("becomes larger, with zeroes at its end", () => {
    const { disk, simulation } = setup(3)
    succeeded(simulation.run(withBdev(disk, (bdev) => bdev.writeBytes(sizeBytes - sector, filled(7)))))
    disk.enlarge(2 * sizeBytes)
    const bytes = succeeded(simulation.run(withBdev(disk, (bdev) => bdev.readBytes(sizeBytes - sector, 2 * sector))))
    assert.deepStrictEqual(bytes, new Uint8Array([...filled(7), ...filled(0)]))
    assert.strictEqual(disk.sizeBytes, 2 * sizeBytes)
    assert.throws(() => disk.enlarge(sizeBytes), RangeError)
  })

  it("fails, retries, misdirects and flips what it is told to", () => {
    const { disk, simulation } = setup(4)
    const next = (fault: SimulatedDisk.Fault) =>
      Effect.sync(() => {
        disk.onRequest = () => {
          disk.onRequest = undefined
          return fault
        }
      })
    succeeded(
      simulation.run(
        withBdev(disk, (bdev) =>
          Effect.gen(function* () {
            yield* next({ _tag: "Errno", errno: 5 })
            assert.strictEqual((yield* Effect.flip(bdev.readBytes(0, sector))).reason._tag, "IoFailed")
            yield* next({ _tag: "Retry" })
            yield* bdev.writeBytes(0, filled(1))
            yield* next({ _tag: "Misdirect", offsetBytes: 8 * sector })
            yield* bdev.writeBytes(0, filled(2))
            assert.deepStrictEqual(yield* bdev.readBytes(0, sector), filled(1))
            assert.deepStrictEqual(yield* bdev.readBytes(8 * sector, sector), filled(2))
            yield* next({ _tag: "Flip", bit: 11 })
            yield* bdev.writeBytes(0, filled(0))
            const flipped = yield* bdev.readBytes(0, sector)
            assert.deepStrictEqual([...flipped.subarray(0, 3)], [0, 8, 0])
          })
        )
      )
    )
  })

  it("fails what is under way, and what comes later, when it is unplugged", () => {
    const { disk, simulation } = setup(6, { delay: 1, delayMicros: 10_000_000 })
    const reasons = succeeded(
      simulation.run(
        withBdev(disk, (bdev) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.forkChild(Effect.flip(bdev.writeBytes(0, filled(1))))
            yield* Effect.sleep("1 second")
            yield* Effect.sync(disk.unplug)
            const first = yield* Fiber.join(fiber)
            const second = yield* Effect.flip(bdev.readBytes(0, sector))
            return [first.reason._tag, second.reason._tag]
          })
        )
      )
    )
    assert.deepStrictEqual(reasons, ["DeviceRemoved", "DeviceRemoved"])
  })

  it("is one disk for two engines", () => {
    const { disk, simulation } = setup(8)
    const bytes = succeeded(
      simulation.run(
        withBdev(disk, (first) =>
          Effect.andThen(
            first.writeBytes(0, filled(9)),
            withBdev(disk, (second) => second.readBytes(0, sector))
          )
        )
      )
    )
    assert.deepStrictEqual(bytes, filled(9))
  })
})
