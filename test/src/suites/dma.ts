/** DMA memory: what a buffer promises while its scope is open, and what is left of it afterwards. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectReason,
  expectReleaseTimedOut,
  failsWith,
  leavesNothing,
  mallocOpened,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"
import { heldReads } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const bytesInUse = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) => spdk.usage).pipe(
  Effect.map((usage) => usage.dmaBytes)
)

/** Takes a buffer, closes its scope, and hands the dead buffer on. */
const released = (lengthBytes: number) => Effect.scoped(DmaBuffer.make(lengthBytes))

export const suite = (name: string, layer: EngineLayer, { engine }: Capabilities): void =>
  contract(name, layer, (check) => {
    check("has the length that was asked for, zeroed, and is writable", () =>
      seeded((random) =>
        Effect.gen(function* () {
          for (const length of [1, 511, 512, 513, 4096, 65_536, 1_048_576, 1 + random.below(100_000)]) {
            yield* Effect.scoped(
              Effect.gen(function* () {
                const buffer = yield* DmaBuffer.make(length)
                assert.strictEqual(buffer.byteLength, length)
                assert.strictEqual(buffer.bytes.length, length)
                sameBytes(buffer.bytes, new Uint8Array(length), `a fresh buffer of ${length} bytes`)
                buffer.bytes.set(pattern(length, length))
                sameBytes(buffer.bytes, pattern(length, length), "what was written")
              })
            )
          }
        })
      )
    )

    check("whose view is transferred stays where it is, or is refused by every I/O, and can be released", () =>
      leavesNothing(
        Effect.gen(function* () {
          const bdev = yield* mallocOpened()
          const buffer = yield* DmaBuffer.make(blockSize)
          const view = buffer.bytes.buffer
          assert.instanceOf(view, ArrayBuffer)
          try {
            structuredClone(view, { transfer: [view] })
          } catch (error) {
            assert.include(error, { name: "DataCloneError" })
          }
          const read = bdev.read(0, buffer)
          if (engine === "libspdk") {
            yield* read
            assert.strictEqual(buffer.bytes.length, blockSize)
          } else {
            yield* failsWith(read, "Released")
          }
        })
      )
    )

    check("is zeroed again when the memory was used before", () =>
      Effect.gen(function* () {
        for (let round = 0; round < 20; round++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const buffer = yield* DmaBuffer.make(8192)
              sameBytes(buffer.bytes, new Uint8Array(8192), `buffer of round ${round}`)
              buffer.bytes.fill(0xa5)
            })
          )
        }
      })
    )

    check("does not share bytes with any other buffer", () =>
      Effect.gen(function* () {
        const buffers = yield* Effect.forEach(Array.from({ length: 64 }), () => DmaBuffer.make(4096))
        for (const [index, buffer] of buffers.entries()) buffer.bytes.set(pattern(4096, index))
        for (const [index, buffer] of buffers.entries())
          sameBytes(buffer.bytes, pattern(4096, index), `buffer ${index}`)
      })
    )

    check("counts its bytes while its scope is open and not a moment longer", () =>
      Effect.gen(function* () {
        const before = yield* bytesInUse
        const scope = yield* Scope.make()
        yield* DmaBuffer.make(65_536).pipe(Scope.provide(scope))
        assert.isAtLeast((yield* bytesInUse) - before, 65_536)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* bytesInUse, before)
      })
    )

    check("leaves a view of length 0 behind, and slices with it", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const buffer = yield* DmaBuffer.make(4096).pipe(Scope.provide(scope))
        const view = buffer.bytes
        const sub = view.subarray(512, 1024)
        const slice = buffer.slice(512, 512)
        const sliceView = slice.bytes
        view.fill(7)
        assert.strictEqual(sub[0], 7)
        assert.strictEqual(sliceView[511], 7)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(view.length, 0)
        assert.strictEqual(view.byteLength, 0)
        assert.strictEqual(sub.length, 0)
        assert.strictEqual(sliceView.length, 0)
        assert.strictEqual(buffer.bytes.length, 0)
        assert.strictEqual(slice.bytes.length, 0)
        // Writing to a view of length 0 is what JavaScript makes of it: nothing.
        view[0] = 1
        assert.isUndefined(view[0])
      })
    )

    check("refuses every use after release with Released", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* released(4096)
        yield* failsWith(bdev.read(0, buffer), "Released", { what: "buffer" })
        yield* failsWith(bdev.write(0, buffer), "Released", { what: "buffer" })
        yield* failsWith(bdev.readv(0, [buffer]), "Released", { what: "buffer" })
        yield* failsWith(bdev.writev(0, [buffer]), "Released", { what: "buffer" })
        yield* failsWith(bdev.readBatch([{ offsetBytes: 0, buffer }]), "Released", { what: "buffer" })
        yield* failsWith(bdev.writeBatch([{ offsetBytes: 0, buffer }]), "Released", { what: "buffer" })
      })
    )

    check("refuses a slice of a released buffer, and a live buffer in the same call does not help", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const live = yield* DmaBuffer.make(512)
        const dead = yield* Effect.scoped(Effect.map(DmaBuffer.make(4096), (buffer) => buffer.slice(0, 512)))
        yield* failsWith(bdev.read(0, dead), "Released", { what: "buffer" })
        yield* failsWith(bdev.writev(0, [live, dead]), "Released", { what: "buffer" })
        assert.strictEqual(live.pins, 0, "the refused call let go of the live buffer")
      })
    )

    check("a slice reads and writes its part and nothing beside it", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const buffer = yield* DmaBuffer.make(4096)
        yield* bdev.writeBytes(0, pattern(512, 1))
        buffer.bytes.fill(0xee)
        yield* bdev.read(0, buffer.slice(1024, 512))
        const expected = new Uint8Array(4096).fill(0xee)
        expected.set(pattern(512, 1), 1024)
        sameBytes(buffer.bytes, expected, "the buffer around the slice")
        yield* bdev.write(blockSize * 4, buffer.slice(1024, 1024))
        sameBytes(yield* bdev.readBytes(blockSize * 4, 1024), expected.subarray(1024, 2048), "the slice on the bdev")
      })
    )

    check("refuses a slice that leaves the buffer", () =>
      Effect.gen(function* () {
        const buffer = yield* DmaBuffer.make(4096)
        const bad = [
          [-1, 10],
          [4097, 0],
          [4096, 1],
          [4000, 97],
          [0, 4097],
          [1.5, 10],
          [0, -1],
          [NaN, 1],
          [0, NaN]
        ] as const
        for (const [offset, length] of bad) {
          const exit = yield* Effect.exit(
            Effect.try({ try: () => buffer.slice(offset, length), catch: (error) => error })
          )
          const reason = expectReason(exit, "InvalidArgument")
          assert.match(reason.field, /offsetBytes|lengthBytes/)
          assert.match(reason.operation, /slice/)
        }
        assert.strictEqual(buffer.slice(1000).byteLength, 3096)
      })
    )

    check("names field and rule of a bad length or alignment", () =>
      Effect.gen(function* () {
        for (const length of [0, -1, 1.5, NaN, Infinity, 2 ** 53, 2 ** 31 + 1]) {
          yield* failsWith(DmaBuffer.make(length), "InvalidArgument", { field: "lengthBytes" })
        }
        for (const alignment of [0, -4096, 3, 1000, NaN, 1.5, 2 ** 22]) {
          yield* failsWith(DmaBuffer.make(4096, { alignment }), "InvalidArgument", { field: "alignment" })
        }
      })
    )

    check("fails with NoMemory when there is none, and goes on when there is again", () =>
      Effect.gen(function* () {
        yield* leavesNothing(failsWith(DmaBuffer.make(2 * 1024 ** 3), "NoMemory"))
        const before = yield* bytesInUse
        const many = Effect.forEach(Array.from({ length: 4096 }), () => DmaBuffer.make(256 * 1024 ** 2), {
          discard: true
        })
        yield* failsWith(Effect.scoped(many), "NoMemory")
        assert.strictEqual(yield* bytesInUse, before)
        yield* Effect.scoped(DmaBuffer.make(65_536))
      })
    )

    check("is not released under a device: closing its scope waits for the I/O", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const scope = yield* Scope.make()
        const buffer = yield* DmaBuffer.make(4096).pipe(Scope.provide(scope))
        const reading = yield* Effect.forkChild(held.bdev.read(0, buffer), { startImmediately: true })
        yield* held.holds(1)
        assert.strictEqual(buffer.pins, 1)
        const closed = yield* Deferred.make<void>()
        const closing = yield* Effect.forkChild(
          Effect.andThen(Scope.close(scope, Exit.void), Deferred.succeed(closed, undefined)),
          { startImmediately: true }
        )
        yield* held.roundTrips(20)
        assert.isFalse(yield* Deferred.isDone(closed), "the scope waits")
        assert.strictEqual(buffer.pins, 1)
        yield* held.letGo
        yield* within("the close", Fiber.join(closing))
        yield* within("the read", Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
        assert.strictEqual(buffer.bytes.length, 0)
      })
    )

    check("a device that never answers makes the release fail loudly, and has the memory until it does answer", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const spdk = yield* Spdk.Spdk
        const before = (yield* spdk.usage).dmaBytes
        const scope = yield* Scope.make()
        const buffer = yield* DmaBuffer.make(4096).pipe(
          Scope.provide(scope),
          Effect.provideService(Bdev.ReleaseTimeout, "30 millis")
        )
        const reading = yield* Effect.forkChild(held.bdev.read(0, buffer), { startImmediately: true })
        yield* held.holds(1)
        const exit = yield* within("the release", Effect.exit(Scope.close(scope, Exit.void)))
        expectReleaseTimedOut(exit, { limitMillis: 30 })
        assert.isAtLeast((yield* spdk.usage).dmaBytes, before + 4096, "the memory is the device's")
        assert.strictEqual(buffer.pins, 1)
        yield* held.letGo
        yield* within("the read", Fiber.join(reading))
        yield* until(
          "the memory is back",
          Effect.map(spdk.usage, (usage) => usage.dmaBytes === before)
        )
      })
    )

    check("a buffer used by many requests has as many pins, and none when they are done", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const buffer = yield* DmaBuffer.make(512 * 32)
        const reading = yield* Effect.forEach(Array.from({ length: 32 }), (_, index) =>
          Effect.forkChild(held.bdev.read(index * 512, buffer.slice(index * 512, 512)), { startImmediately: true })
        )
        yield* held.holds(32)
        assert.strictEqual(buffer.pins, 32)
        yield* held.letGo
        yield* within("the reads", Fiber.joinAll(reading))
        assert.strictEqual(buffer.pins, 0)
      })
    )

    check("a pool lends each buffer to one at a time and makes the rest wait", () =>
      Effect.gen(function* () {
        const pool = yield* DmaBuffer.pool({ lengthBytes: 4096, capacity: 4 })
        let lent = 0
        let most = 0
        yield* Effect.forEach(
          Array.from({ length: 100 }),
          (_, index) =>
            Effect.scoped(
              Effect.gen(function* () {
                const buffer = yield* pool.take
                lent++
                most = Math.max(most, lent)
                assert.strictEqual(buffer.byteLength, 4096)
                buffer.bytes.set(pattern(4096, index))
                yield* Effect.yieldNow
                sameBytes(buffer.bytes, pattern(4096, index), `the lease ${index}`)
                lent--
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
        assert.strictEqual(most, 4)
        assert.strictEqual(lent, 0)
      })
    )

    check("a lease is over when its scope closes: its view is dead though the pool keeps the memory", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        const pool = yield* DmaBuffer.pool({ lengthBytes: 4096, capacity: 1 })
        const before = yield* Effect.scoped(pool.take)
        assert.strictEqual(before.bytes.length, 0)
        yield* failsWith(bdev.read(0, before), "Released", { what: "buffer" })
        const again = yield* pool.take
        assert.strictEqual(again.bytes.length, 4096)
        yield* bdev.read(0, again)
        yield* failsWith(bdev.read(0, before), "Released", { what: "buffer" })
      })
    )

    check("a waiter of a pool that is interrupted takes nothing with it", () =>
      Effect.gen(function* () {
        const pool = yield* DmaBuffer.pool({ lengthBytes: 512, capacity: 1 })
        const scope = yield* Scope.make()
        yield* pool.take.pipe(Scope.provide(scope))
        const waiters = yield* Effect.forEach(Array.from({ length: 10 }), () =>
          Effect.forkChild(Effect.scoped(pool.take), { startImmediately: true })
        )
        yield* Fiber.interruptAll(waiters.slice(0, 9))
        yield* Scope.close(scope, Exit.void)
        const last = waiters[9]
        assert.isDefined(last)
        yield* within("the last waiter", Fiber.join(last))
        yield* within("one more", Effect.scoped(pool.take))
      })
    )

    check("a lease with I/O in flight goes back to the pool after the I/O", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const pool = yield* DmaBuffer.pool({ lengthBytes: 512, capacity: 1 })
        const reading = yield* Effect.forkChild(
          Effect.scoped(Effect.flatMap(pool.take, (buffer) => held.bdev.read(0, buffer))),
          { startImmediately: true }
        )
        yield* held.holds(1)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(reading), { startImmediately: true })
        const waiter = yield* Effect.forkChild(Effect.scoped(pool.take), { startImmediately: true })
        yield* held.roundTrips(20)
        assert.isUndefined(waiter.pollUnsafe(), "nobody gets memory that a device still writes to")
        yield* held.letGo
        yield* within("the waiter", Fiber.join(waiter))
        yield* within("the interruption", Fiber.join(interrupting))
      })
    )

    check("names field and rule of a bad pool", () =>
      Effect.gen(function* () {
        for (const capacity of [0, -1, 1.5, NaN]) {
          yield* failsWith(DmaBuffer.pool({ lengthBytes: 512, capacity }), "InvalidArgument", { field: "capacity" })
        }
        for (const lengthBytes of [0, -1, 1.5, NaN]) {
          yield* failsWith(DmaBuffer.pool({ lengthBytes, capacity: 1 }), "InvalidArgument", { field: "lengthBytes" })
        }
      })
    )

    check("1,000 buffers at once, released in random order, leave nothing", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const scopes = yield* Effect.forEach(Array.from({ length: 1000 }), () =>
            Effect.gen(function* () {
              const scope = yield* Scope.make()
              yield* DmaBuffer.make(512 + random.below(4096)).pipe(Scope.provide(scope))
              return scope
            })
          )
          while (scopes.length > 0) {
            const [scope] = scopes.splice(random.below(scopes.length), 1)
            if (scope !== undefined) yield* Scope.close(scope, Exit.void)
          }
          const bdev = yield* mallocOpened()
          yield* bdev.readBytes(0, 512)
          yield* until(
            "nothing is in flight",
            Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) =>
              Effect.map(spdk.usage, (usage) => usage.requestsInFlight === 0)
            )
          )
        })
      )
    )
  })
