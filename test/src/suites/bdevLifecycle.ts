/** Handles, from open to close: events, removal under an open handle, resize, and nothing left behind. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { truncateSync } from "node:fs"
import { type Capabilities, type EngineLayer, scratchFile } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectReasonIn,
  failsWith,
  fresh,
  leavesNothing,
  mallocOpened,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"
import { arrived, errorBdev, needsResume } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const usage = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) => spdk.usage)

/** A null bdev that the test deletes itself, under open handles. */
const doomed = Effect.gen(function* () {
  const client = yield* Rpc.RpcClient
  const name = fresh("doomed")
  yield* client.call("bdev_malloc_create", { name, num_blocks: 1024, block_size: blockSize })
  const remove = client.call("bdev_malloc_delete", { name })
  yield* Effect.addFinalizer(() => Effect.ignore(remove))
  return { name, remove }
})

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("a handle is counted while its scope is open, its channel from its first I/O", () =>
      Effect.gen(function* () {
        const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        const before = yield* usage
        yield* Effect.scoped(
          Effect.gen(function* () {
            const bdev = yield* Bdev.open(created)
            assert.strictEqual((yield* usage).descriptors, before.descriptors + 1)
            yield* bdev.readBytes(0, blockSize)
            assert.strictEqual((yield* usage).channels, before.channels + 1)
            yield* bdev.readBytes(0, blockSize)
            assert.strictEqual((yield* usage).channels, before.channels + 1)
          })
        )
        const after = yield* usage
        assert.strictEqual(after.descriptors, before.descriptors)
        assert.strictEqual(after.channels, before.channels)
      })
    )

    check("removed under an open handle: events end, I/O is DeviceRemoved, the scope closes, the delete returns", () =>
      Effect.gen(function* () {
        const { name, remove } = yield* doomed
        const scope = yield* Scope.make()
        const bdev = yield* Bdev.open(name, { write: true }).pipe(Scope.provide(scope))
        const buffer = yield* DmaBuffer.make(blockSize)
        yield* bdev.write(0, buffer)
        const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
        yield* within("the delete", remove)
        const seen = yield* within("the end of the events", Fiber.join(events))
        assert.deepStrictEqual(
          seen.map((event) => event._tag),
          ["Removed"]
        )
        const operations = [
          bdev.read(0, buffer),
          bdev.write(0, buffer),
          bdev.readv(0, [buffer]),
          bdev.flush(),
          bdev.unmap(0, blockSize),
          bdev.writeZeroes(0, blockSize),
          bdev.reset,
          bdev.readBytes(0, blockSize),
          bdev.writeBytes(0, new Uint8Array(blockSize)),
          bdev.readBatch([{ offsetBytes: 0, buffer }]),
          Stream.runDrain(bdev.stream())
        ]
        for (const effect of operations) yield* failsWith(effect, "DeviceRemoved")
        yield* failsWith(bdev.stats, "NotFound")
        assert.isTrue(bdev.isRemoved)
        assert.strictEqual(buffer.pins, 0)
        // Who asks only now hears it too.
        const late = yield* within("late events", Stream.runCollect(bdev.events))
        assert.deepStrictEqual(
          late.map((event) => event._tag),
          ["Removed"]
        )
        yield* within("the close", Scope.close(scope, Exit.void))
        yield* failsWith(Bdev.find(name), "NotFound")
        yield* failsWith(Bdev.open(name), "NotFound")
      })
    )

    check("removed with I/O in flight: each request ends once, done or DeviceRemoved or Aborted", () =>
      Effect.gen(function* () {
        for (let round = 0; round < 5; round++) {
          const { name, remove } = yield* doomed
          const bdev = yield* Bdev.open(name, { write: true })
          const buffer = yield* DmaBuffer.make(blockSize)
          let ended = 0
          const fibers = yield* Effect.forEach(Array.from({ length: 400 }), (_, index) =>
            Effect.forkChild(
              Effect.ensuring(
                index % 2 === 0 ? bdev.read(index * blockSize, buffer) : bdev.write(index * blockSize, buffer),
                Effect.sync(() => void ended++)
              ),
              { startImmediately: true }
            )
          )
          const removing = yield* Effect.forkChild(remove, { startImmediately: true })
          const more = yield* Effect.forEach(Array.from({ length: 100 }), (_, index) =>
            Effect.forkChild(Effect.andThen(Effect.yieldNow, bdev.read(index * blockSize, buffer)))
          )
          yield* within("the delete", Fiber.join(removing))
          for (const exit of yield* within("the I/O", Fiber.awaitAll([...fibers, ...more]))) {
            if (Exit.isSuccess(exit)) continue
            expectReasonIn(exit, ["DeviceRemoved", "Aborted"])
          }
          assert.strictEqual(ended, 400)
          assert.strictEqual(buffer.pins, 0)
        }
      })
    )

    check("a device that keeps I/O is removed: the I/O ends, the memory comes back, nothing hangs", () =>
      Effect.gen(function* () {
        yield* needsResume
        const device = yield* errorBdev()
        yield* device.inject({ ioType: "read", errorType: "pending" })
        const buffer = yield* DmaBuffer.make(blockSize)
        const scope = yield* Scope.make()
        const bdev = yield* Bdev.open(device.name).pipe(Scope.provide(scope))
        const reading = yield* Effect.forkChild(bdev.read(0, buffer), { startImmediately: true })
        yield* until(
          "the read is in flight",
          Effect.map(usage, (now) => now.requestsInFlight === 1)
        )
        yield* arrived
        const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
        const client = yield* Rpc.RpcClient
        const removing = yield* Effect.forkChild(client.call("bdev_error_delete", { name: device.name }), {
          startImmediately: true
        })
        const seen = yield* within("the events", Fiber.join(events))
        assert.deepStrictEqual(
          seen.map((event) => event._tag),
          ["Removed"]
        )
        // SPDK waits with the removal until the module gives up what it has.
        yield* Effect.ignore(device.letGo)
        yield* within("the read", Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
        yield* within("the delete", Fiber.join(removing))
        yield* within("the close", Scope.close(scope, Exit.void))
      })
    )

    check("several handles, on several threads, hear of the same removal", () =>
      Effect.gen(function* () {
        const { name, remove } = yield* doomed
        const thread = yield* SpdkThread.spawn({ name: fresh("removal") })
        const handles = yield* Effect.forEach(Array.from({ length: 10 }), (_, index) =>
          index % 2 === 0 ? Bdev.open(name) : Bdev.open(name).pipe(SpdkThread.on(thread))
        )
        for (const [index, handle] of handles.entries()) {
          const read = handle.readBytes(0, blockSize)
          yield* index % 2 === 0 ? read : read.pipe(SpdkThread.on(thread))
        }
        const events = yield* Effect.forEach(handles, (handle) =>
          Effect.forkChild(Stream.runCollect(handle.events), { startImmediately: true })
        )
        yield* within("the delete", remove)
        for (const seen of yield* within("the events", Fiber.joinAll(events))) {
          assert.deepStrictEqual(
            seen.map((event) => event._tag),
            ["Removed"]
          )
        }
      })
    )

    check("a removed base takes what stands on it along", () =>
      Effect.gen(function* () {
        const { name, remove } = yield* doomed
        const passthru = yield* Bdev.createPassthru({ base: name, name: fresh("passthru") })
        const bdev = yield* Bdev.open(passthru, { write: true })
        yield* bdev.writeBytes(0, pattern(blockSize, 1))
        const events = yield* Effect.forkChild(Stream.runCollect(bdev.events), { startImmediately: true })
        yield* within("the delete", remove)
        assert.deepStrictEqual(
          (yield* within("the events", Fiber.join(events))).map((event) => event._tag),
          ["Removed"]
        )
        yield* failsWith(bdev.readBytes(0, blockSize), "DeviceRemoved")
        yield* until(
          "the passthru is gone",
          Effect.map(Bdev.list, (all) => !all.some((one) => one.name === passthru))
        )
      })
    )

    check("resized under an open handle: the event says the new size, and I/O reaches it", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const created = yield* Bdev.createNull({ name: fresh("null"), blockSize, numBlocks: 2048 })
        const bdev = yield* Bdev.open(created, { write: true })
        const first = yield* Effect.forkChild(Stream.runHead(bdev.events), { startImmediately: true })
        const buffer = yield* DmaBuffer.make(blockSize)
        yield* failsWith(bdev.read(2048 * blockSize, buffer), "InvalidArgument")
        yield* client.call("bdev_null_resize", { name: created, new_size: 2 })
        const event = yield* within("the resize event", Fiber.join(first))
        assert.deepStrictEqual(event._tag === "Some" ? event.value : undefined, { _tag: "Resized", numBlocks: 4096 })
        assert.strictEqual(bdev.numBlocks, 4096)
        assert.strictEqual(bdev.sizeBytes, 4096 * blockSize)
        yield* bdev.read(4095 * blockSize, buffer)
        yield* failsWith(bdev.read(4096 * blockSize, buffer), "InvalidArgument")
      })
    )

    check("a file bdev grows with its file after a rescan", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const path = yield* scratchFile
        const created = yield* Bdev.createFile({ name: fresh("file"), path, blockSize, size: 64 * blockSize })
        const bdev = yield* Bdev.open(created, { write: true })
        yield* bdev.writeBytes(63 * blockSize, pattern(blockSize, 1))
        const first = yield* Effect.forkChild(Stream.runHead(bdev.events), { startImmediately: true })
        truncateSync(path, 128 * blockSize)
        yield* client.call("bdev_aio_rescan", { name: created })
        const event = yield* within("the resize event", Fiber.join(first))
        assert.deepStrictEqual(event._tag === "Some" ? event.value : undefined, { _tag: "Resized", numBlocks: 128 })
        yield* bdev.writeBytes(127 * blockSize, pattern(blockSize, 2))
        sameBytes(yield* bdev.readBytes(63 * blockSize, blockSize), pattern(blockSize, 1), "the old last block")
      })
    )

    check("events end with the handle", () =>
      Effect.gen(function* () {
        const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
        const events = yield* Effect.scoped(
          Effect.flatMap(Bdev.open(created), (bdev) =>
            Effect.forkDetach(Stream.runCollect(bdev.events), { startImmediately: true })
          )
        )
        assert.deepStrictEqual(yield* within("the events", Fiber.join(events)), [])
      })
    )

    check("a scope with everything in it closes in SPDK's order", () =>
      leavesNothing(
        Effect.gen(function* () {
          const thread = yield* SpdkThread.spawn({ name: fresh("graph") })
          const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: 1024 })
          const split = yield* Bdev.createSplit({ base: base, count: 2 })
          const parts = yield* Effect.forEach(split, (part) =>
            Bdev.open(part, { write: true }).pipe(SpdkThread.on(thread))
          )
          const buffer = yield* DmaBuffer.make(4096)
          for (const part of parts) {
            const channel = yield* part.channel.pipe(SpdkThread.on(thread))
            yield* channel.write(0, buffer)
            yield* part.write(4096, buffer)
          }
        })
      )
    )

    check("a bdev's scope closes before the handles on it: they hear of the removal", () =>
      Effect.gen(function* () {
        const bdevScope = yield* Scope.make()
        const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 }).pipe(
          Scope.provide(bdevScope)
        )
        const bdev = yield* Bdev.open(created, { write: true })
        yield* bdev.writeBytes(0, pattern(blockSize, 1))
        yield* within("the close", Scope.close(bdevScope, Exit.void))
        yield* failsWith(bdev.readBytes(0, blockSize), "DeviceRemoved")
      })
    )

    check("layers compose: a bdev as a service", () =>
      Effect.gen(function* () {
        const program = Effect.gen(function* () {
          const bdev = yield* Bdev.Bdev
          yield* bdev.writeBytes(0, pattern(4096, 1))
          sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 1), "through the layer")
          return bdev.sizeBytes
        })
        assert.strictEqual(yield* Effect.provide(program, Bdev.layerMalloc({ size: "1 MiB" })), 1024 ** 2)
        const path = yield* scratchFile
        assert.strictEqual(yield* Effect.provide(program, Bdev.layerFile({ path, size: "1 MiB" })), 1024 ** 2)
        const outer = yield* mallocOpened(2048)
        assert.strictEqual(
          yield* Effect.provide(program, Bdev.layerOpen({ name: outer.name, write: true })),
          2048 * blockSize
        )
        assert.deepStrictEqual(
          (yield* Bdev.list).map((one) => one.name),
          [outer.name]
        )
      })
    )

    check(
      "10,000 handles opened, used and closed leave nothing",
      () =>
        seeded((random) =>
          Effect.gen(function* () {
            const created = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks: 64 })
            const before = yield* usage
            const buffer = yield* DmaBuffer.make(blockSize)
            const held = yield* usage
            yield* Effect.forEach(
              Array.from({ length: 10_000 }),
              () =>
                Effect.scoped(
                  Effect.gen(function* () {
                    const bdev = yield* Bdev.open(created, { write: random.chance(0.5) })
                    if (random.chance(0.7)) yield* bdev.read(blockSize * random.below(64), buffer)
                    if (random.chance(0.1)) yield* bdev.channel
                  })
                ),
              { concurrency: 32, discard: true }
            )
            assert.deepStrictEqual(yield* usage, held)
            assert.strictEqual(held.slabs, before.slabs + 1)
          })
        ),
      { timeoutMillis: 600_000 }
    )
  })
