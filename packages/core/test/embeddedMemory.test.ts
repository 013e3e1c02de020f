import { Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as path from "node:path"
import {
  failed,
  makeEngine,
  malloc,
  ok,
  open,
  pattern,
  read,
  slab,
  start,
  transfer,
  vectored,
  write
} from "./support/embeddedEngine.ts"
import { makeTarget, nqn, until } from "./support/rawNvmeHost.ts"
import { scratchFolder } from "./support/scratch.ts"
import { uncaughtDuring } from "./support/uncaught.ts"

/** A data transfer error. */
const lost = { status: -5, detail: 0, nvme: 0x10004 }

describe("the embedded engine's memory", () => {
  it.effect("is zeroed, as long as it was asked for, and counted", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      const slab = yield* engine.memory.allocate(5000, 64)
      assert.strictEqual(slab.view.length, 5000)
      assert.isTrue(slab.view.every((byte) => byte === 0))
      assert.include(yield* engine.usage, { slabs: 1, dmaBytes: 5000 })
      engine.memory.free(slab)
      assert.include(yield* engine.usage, { slabs: 0, dmaBytes: 0 })
    }).pipe(Effect.scoped)
  )

  it.effect("ends at the limit, which malloc bdevs share, and comes back", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine({ memoryMiB: 64 })
      const mib = 1024 * 1024
      const half = yield* engine.memory.allocate(32 * mib, 1)
      const refused = yield* Effect.flip(engine.memory.allocate(32 * mib + 1, 1))
      assert.strictEqual(refused.reason._tag, "NoMemory")
      assert.match(refused.message, /33554433 bytes.* 33554432 of 67108864 are free/)
      yield* engine.rpc.call("bdev_malloc_create", malloc("m", 32 * 2048))
      const none = yield* Effect.flip(engine.memory.allocate(1, 1))
      assert.strictEqual(none.reason._tag, "NoMemory")
      const noDisk = yield* Effect.flip(engine.rpc.call("bdev_malloc_create", malloc("n", 1)))
      assert.strictEqual(noDisk.reason._tag, "NoMemory")
      yield* engine.rpc.call("bdev_malloc_delete", { name: "m" })
      engine.memory.free(half)
      engine.memory.free(yield* engine.memory.allocate(64 * mib, 4096))
    }).pipe(Effect.scoped)
  )

  it.effect.each([
    [0, 1, "lengthBytes"],
    [-1, 1, "lengthBytes"],
    [1.5, 1, "lengthBytes"],
    [2 ** 31 + 1, 1, "lengthBytes"],
    [Number.NaN, 1, "lengthBytes"],
    [1, 0, "alignment"],
    [1, 3, "alignment"],
    [1, -2, "alignment"]
  ] as const)("refuses %d bytes aligned to %d by the name of %s", ([lengthBytes, alignmentBytes, field]) =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      const { reason } = yield* Effect.flip(engine.memory.allocate(lengthBytes, alignmentBytes))
      assert.include(reason, { _tag: "InvalidArgument", field })
    }).pipe(Effect.scoped)
  )

  it.effect("detaches every view when it is freed, and once is enough", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      const slab = yield* engine.memory.allocate(4096, 4096)
      const { view } = slab
      const part = view.subarray(10, 20)
      engine.memory.free(slab)
      assert.deepStrictEqual([view.length, part.length, slab.view.length], [0, 0, 0])
      const next = yield* engine.memory.allocate(4096, 4096)
      engine.memory.free(slab)
      assert.strictEqual(next.view.length, 4096)
      assert.strictEqual((yield* engine.usage).slabs, 1)
      engine.memory.free(next)
    }).pipe(Effect.scoped)
  )

  it.effect("goes on under a new name when it is renewed: the bytes stay, the old view and the old name do not", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      const disk = yield* open(engine, "m")
      const old = yield* engine.memory.allocate(4096, 4096)
      old.view.set(pattern(4096, 1))
      const oldView = old.view
      const renewed = engine.memory.renew(old)
      assert.strictEqual(oldView.length, 0)
      assert.deepStrictEqual([...renewed.view], [...pattern(4096, 1)])
      assert.strictEqual(renewed.slot, old.slot)
      assert.notStrictEqual(renewed.generation, old.generation)
      assert.include(yield* write(disk, old, 0), { status: -9, detail: 3 })
      assert.deepStrictEqual(yield* write(disk, renewed, 0), ok)
      engine.memory.free(old)
      assert.strictEqual((yield* engine.usage).slabs, 1)
      engine.memory.free(renewed)
      assert.strictEqual((yield* engine.usage).slabs, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("freed under a request in flight stays until the request has ended, and is nobody else's until then", () =>
    Effect.gen(function* () {
      const filename = path.join(yield* scratchFolder, "disk.img")
      const bytes = pattern(1024 * 1024, 3)
      fs.writeFileSync(filename, bytes)
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512 })
      const disk = yield* open(engine, "a")
      const slab = yield* engine.memory.allocate(bytes.length, 4096)
      slab.view.set(pattern(bytes.length, 4))
      const request = start(engine.mainThread.queue, transfer(disk, Opcode.Write, slab, 0))
      // The drain is a microtask away; from there on the file has the request.
      yield* Effect.promise(() => Promise.resolve())
      assert.strictEqual((yield* engine.usage).requestsInFlight, 1)
      engine.memory.free(slab)
      assert.include(yield* engine.usage, { slabs: 1, dmaBytes: bytes.length })
      assert.deepStrictEqual(yield* request.ended, ok)
      assert.include(yield* engine.usage, { slabs: 0, dmaBytes: 0 })
      assert.isTrue(Buffer.from(pattern(bytes.length, 4)).equals(fs.readFileSync(filename)))
    }).pipe(Effect.scoped)
  )

  it.effect(
    "whose view its user has transferred away is stale, no request goes there, and it can still be given back",
    () =>
      Effect.gen(function* () {
        const engine = yield* makeEngine()
        yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
        const disk = yield* open(engine, "m")
        const slab = yield* engine.memory.allocate(4096, 4096)
        const { buffer } = slab.view
        assert.instanceOf(buffer, ArrayBuffer)
        structuredClone(buffer, { transfer: [buffer] })
        assert.include(yield* read(disk, slab, 0), { status: -9, detail: 3 })
        const renewed = engine.memory.renew(slab)
        assert.strictEqual(renewed.view.length, 4096)
        assert.include(yield* read(disk, renewed, 0), { status: 0 })
        structuredClone(renewed.view.buffer, { transfer: [renewed.view.buffer as ArrayBuffer] })
        engine.memory.free(renewed)
        assert.include(yield* engine.usage, { slabs: 0, dmaBytes: 0 })
      }).pipe(Effect.scoped)
  )

  it.live("that is transferred away while a request is held back fails that request, and no other", () =>
    Effect.gen(function* () {
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_malloc_create", malloc("m"))
      yield* engine.rpc.call("bdev_error_create", { base_name: "m" })
      const disk = yield* open(engine, "EE_m")
      const [moved, vectoredMoved, kept] = [yield* slab(engine), yield* slab(engine), yield* slab(engine)]
      yield* engine.rpc.call("bdev_error_inject_error", { name: "EE_m", io_type: "all", error_type: "nomem", num: 3 })
      const segments = [kept, vectoredMoved].map((of) => ({ slab: of, offsetBytes: 0, lengthBytes: 4096 }))
      const held = [
        start(disk.thread.queue, transfer(disk, Opcode.Read, moved, 0)),
        start(disk.thread.queue, vectored(disk, Opcode.Write, segments, 0)),
        start(disk.thread.queue, transfer(disk, Opcode.Write, kept, 0))
      ]
      // A drain, in which the bdev has no memory for them; it asks for it again a turn later.
      yield* Effect.promise(() => Promise.resolve())
      for (const { view } of [moved, vectoredMoved]) structuredClone(view, { transfer: [view.buffer as ArrayBuffer] })
      yield* until("every request to complete", () => held.every(({ times }) => times() > 0))
      assert.deepStrictEqual(yield* Effect.all(held.map(({ ended }) => ended)), [failed, failed, ok])
    }).pipe(Effect.scoped)
  )

  it.live("that is transferred away before it is sent fails its request, and the connection goes on", () =>
    Effect.gen(function* () {
      const { port } = yield* makeTarget()
      const engine = yield* makeEngine()
      const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
      yield* engine.rpc.call("bdev_nvme_attach_controller", { name: "N", ...address, subnqn: nqn })
      const disk = yield* open(engine, "Nn1")
      // Larger than what goes with the command: the target asks for it.
      const moved = yield* slab(engine, 32_768)
      const segment = yield* slab(engine, 32_768)
      const kept = yield* slab(engine)
      const { uncaught, value } = yield* uncaughtDuring(
        Effect.gen(function* () {
          const segments = [kept, segment].map((of) => ({ slab: of, offsetBytes: 0, lengthBytes: of.lengthBytes }))
          const requests = [
            start(disk.thread.queue, transfer(disk, Opcode.Write, moved, 0)),
            start(disk.thread.queue, vectored(disk, Opcode.Write, segments, 0)),
            start(disk.thread.queue, transfer(disk, Opcode.Write, kept, 0))
          ]
          yield* Effect.promise(() => Promise.resolve())
          for (const { view } of [moved, segment]) structuredClone(view, { transfer: [view.buffer as ArrayBuffer] })
          yield* until("every request to complete", () => requests.every(({ times }) => times() > 0))
          return yield* Effect.all(requests.map(({ ended }) => ended))
        })
      )
      assert.deepStrictEqual(uncaught, [])
      assert.deepStrictEqual(value, [lost, lost, ok])
      assert.deepStrictEqual(yield* read(disk, kept, 0), ok)
    }).pipe(Effect.scoped)
  )

  it.effect("is taken back by the end of the engine", () =>
    Effect.gen(function* () {
      const view = yield* Effect.scoped(
        Effect.gen(function* () {
          const engine = yield* makeEngine()
          return (yield* engine.memory.allocate(4096, 4096)).view
        })
      )
      assert.strictEqual(view.length, 0)
    })
  )
})
