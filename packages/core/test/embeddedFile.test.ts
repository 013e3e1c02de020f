import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { createRequire, syncBuiltinESMExports } from "node:module"
import * as path from "node:path"
import {
  control,
  failed,
  makeEngine,
  ok,
  open,
  pattern,
  read,
  run,
  slab,
  start,
  transfer,
  vectored,
  write
} from "./support/embeddedEngine.ts"
import { scratchFolder } from "./support/scratch.ts"

/** What `syncBuiltinESMExports` copies into the module that everybody imports. */
const mutableFs: { fdatasync: typeof fs.fdatasync } = createRequire(import.meta.url)("node:fs")

const disk = Effect.fnUntraced(function* (
  options: { readonly bytes?: Uint8Array; readonly params?: object; readonly write?: boolean } = {}
) {
  const filename = path.join(yield* scratchFolder, "disk.img")
  fs.writeFileSync(filename, options.bytes ?? Buffer.alloc(64 * 512))
  const engine = yield* makeEngine()
  yield* engine.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512, ...options.params })
  const opened = yield* open(engine, "a", options.write === undefined ? {} : { write: options.write })
  return { engine, filename, opened, queue: engine.mainThread.queue }
})

describe("a file bdev", () => {
  it.live("reads what is in the file, and writes where it belongs", () =>
    Effect.gen(function* () {
      const { engine, filename, opened } = yield* disk({ bytes: pattern(64 * 512, 1) })
      const memory = yield* slab(engine, 2048)
      assert.deepStrictEqual(yield* read(opened, memory, 60), ok)
      assert.deepStrictEqual([...memory.view], [...pattern(64 * 512, 1).subarray(60 * 512)])
      memory.view.set(pattern(2048, 2))
      assert.deepStrictEqual(yield* write(opened, memory, 7), ok)
      assert.deepStrictEqual(yield* control(opened, Opcode.Flush, 0, 64), ok)
      const expected = pattern(64 * 512, 1)
      expected.set(pattern(2048, 2), 7 * 512)
      assert.isTrue(Buffer.from(expected).equals(fs.readFileSync(filename)))
    }).pipe(Effect.scoped)
  )

  it.live("scatters and gathers, many at once", () =>
    Effect.gen(function* () {
      const { engine, filename, opened, queue } = yield* disk({ bytes: Buffer.alloc(256 * 512) })
      const memory = yield* slab(engine, 64 * 1024)
      memory.view.set(pattern(memory.lengthBytes, 3))
      const piece = (offsetBlocks: number) => ({ slab: memory, offsetBytes: offsetBlocks * 512, lengthBytes: 512 })
      const requests = Array.from({ length: 64 }, (_, at) =>
        start(queue, vectored(opened, Opcode.Write, [piece(at), piece(127 - at)], at * 2))
      )
      for (const request of requests) assert.deepStrictEqual(yield* request.ended, ok)
      const bytes = fs.readFileSync(filename)
      const source = pattern(memory.lengthBytes, 3)
      for (let at = 0; at < 64; at++) {
        assert.isTrue(bytes.subarray(at * 1024, at * 1024 + 512).equals(source.subarray(at * 512, at * 512 + 512)))
        assert.isTrue(
          bytes.subarray(at * 1024 + 512, at * 1024 + 1024).equals(source.subarray((127 - at) * 512, (128 - at) * 512))
        )
      }
      memory.view.fill(0)
      const segments = [piece(5), piece(9), piece(2)]
      assert.deepStrictEqual(yield* run(queue, vectored(opened, Opcode.Read, segments, 0)), ok)
      for (const [at, { offsetBytes }] of segments.entries()) {
        assert.isTrue(
          bytes.subarray(at * 512, at * 512 + 512).equals(memory.view.subarray(offsetBytes, offsetBytes + 512))
        )
      }
    }).pipe(Effect.scoped)
  )

  it.live("fails every flush after one that failed, until it is made anew", () =>
    Effect.gen(function* () {
      const { filename, opened } = yield* disk()
      const flush = control(opened, Opcode.Flush, 0, 64)
      assert.deepStrictEqual(yield* flush, ok)
      const { fdatasync } = mutableFs
      const failOnce = (_fd: number, callback: fs.NoParamCallback) => {
        restore()
        callback(Object.assign(new Error("EIO"), { errno: -5, code: "EIO" }))
      }
      const restore = () => {
        mutableFs.fdatasync = fdatasync
        syncBuiltinESMExports()
      }
      mutableFs.fdatasync = Object.assign(failOnce, fdatasync)
      syncBuiltinESMExports()
      yield* Effect.addFinalizer(() => Effect.sync(restore))
      const failure = yield* flush
      assert.notDeepEqual(failure, ok)
      // Linux has reported the failure, and would report nothing more.
      assert.deepStrictEqual(yield* flush, failure)
      assert.deepStrictEqual(yield* flush, failure)
      const again = yield* makeEngine()
      yield* again.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512 })
      assert.deepStrictEqual(yield* control(yield* open(again, "a"), Opcode.Flush, 0, 64), ok)
    }).pipe(Effect.scoped)
  )

  it.live("writes zeroes by writing them, more than a buffer of them too", () =>
    Effect.gen(function* () {
      const bytes = pattern(5000 * 512, 1)
      const { engine, filename, opened } = yield* disk({ bytes })
      assert.deepStrictEqual(yield* control(opened, Opcode.WriteZeroes, 3, 4990), ok)
      bytes.fill(0, 3 * 512, 4993 * 512)
      assert.isTrue(Buffer.from(bytes).equals(fs.readFileSync(filename)))
      assert.include(yield* control(opened, Opcode.Unmap), { status: -95, detail: Detail.NotSupported })
      assert.notInclude(opened.descriptor.info.supportedIoTypes, "unmap")
      assert.include(opened.descriptor.info.supportedIoTypes, "write_zeroes")
      assert.include(yield* engine.usage, { requestsInFlight: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("unmaps when it is told to by fallocate, and what was unmapped reads as zeroes", () =>
    Effect.gen(function* () {
      const bytes = pattern(5000 * 512, 1)
      const { filename, opened } = yield* disk({ bytes, params: { fallocate: true } })
      assert.deepStrictEqual(yield* control(opened, Opcode.Unmap, 10, 4000), ok)
      assert.deepStrictEqual(yield* control(opened, Opcode.WriteZeroes, 0, 1), ok)
      bytes.fill(0, 10 * 512, 4010 * 512).fill(0, 0, 512)
      assert.isTrue(Buffer.from(bytes).equals(fs.readFileSync(filename)))
    }).pipe(Effect.scoped)
  )

  it.live("that is read-only fails writes, as SPDK's does, and needs no permission to write", () =>
    Effect.gen(function* () {
      const { engine, filename, opened } = yield* disk({ bytes: pattern(64 * 512, 1), params: { readonly: true } })
      const memory = yield* slab(engine, 512)
      assert.deepStrictEqual(yield* read(opened, memory, 1), ok)
      assert.deepStrictEqual(yield* write(opened, memory, 0), failed)
      assert.deepStrictEqual(yield* control(opened, Opcode.WriteZeroes), failed)
      assert.isTrue(Buffer.from(pattern(64 * 512, 1)).equals(fs.readFileSync(filename)))
    }).pipe(Effect.scoped)
  )

  it.live("fails what lies behind the end of a file that was cut", () =>
    Effect.gen(function* () {
      const { engine, filename, opened } = yield* disk({ bytes: pattern(64 * 512, 1) })
      fs.truncateSync(filename, 10 * 512 + 100)
      const memory = yield* slab(engine, 1024)
      assert.deepStrictEqual(yield* read(opened, memory, 8), ok)
      assert.deepStrictEqual(yield* read(opened, memory, 10), failed)
      assert.deepStrictEqual(yield* read(opened, memory, 20), failed)
      assert.deepStrictEqual(opened.events, [])
    }).pipe(Effect.scoped)
  )

  it.live("is removed when there is nothing left of its file", () =>
    Effect.gen(function* () {
      const { engine, filename, opened } = yield* disk()
      fs.truncateSync(filename, 0)
      const memory = yield* slab(engine, 512)
      assert.deepStrictEqual(yield* read(opened, memory, 0), { status: -19, detail: 0, nvme: 0 })
      while (opened.events.length === 0) yield* Effect.yieldNow
      assert.deepStrictEqual(opened.events, [{ _tag: "Removed" }])
      assert.include(yield* read(opened, memory, 0), { status: -19, detail: Detail.Removed })
      assert.deepStrictEqual(yield* engine.rpc.call("bdev_get_bdevs"), [])
    }).pipe(Effect.scoped)
  )

  it.live("grows by rescan", () =>
    Effect.gen(function* () {
      const { engine, filename, opened } = yield* disk()
      fs.truncateSync(filename, 100 * 512)
      const memory = yield* slab(engine, 512)
      assert.include(yield* read(opened, memory, 99), { status: -22, detail: Detail.BlockRange })
      yield* engine.rpc.call("bdev_aio_rescan", { name: "a" })
      assert.deepStrictEqual(yield* read(opened, memory, 99), ok)
      assert.deepStrictEqual(opened.events, [{ _tag: "Resized", numBlocks: 100 }])
      fs.truncateSync(filename, 50 * 512)
      const { reason } = yield* Effect.flip(engine.rpc.call("bdev_aio_rescan", { name: "a" }))
      assert.strictEqual(reason._tag, "Busy")
    }).pipe(Effect.scoped)
  )

  it.live("a reset waits for what is under way", () =>
    Effect.gen(function* () {
      const { engine, opened, queue } = yield* disk({ bytes: Buffer.alloc(1024 * 1024) })
      const memory = yield* slab(engine, 1024 * 1024)
      const writes = [0, 1, 2, 3].map(() => start(queue, transfer(opened, Opcode.Write, memory, 0)))
      assert.deepStrictEqual(yield* control(opened, Opcode.Reset), ok)
      for (const { times } of writes) assert.strictEqual(times(), 1)
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(process.platform !== "linux")(
    "closes its file when it goes (seen in /proc)",
    () =>
      Effect.gen(function* () {
        const { engine, filename } = yield* disk()
        const links = () =>
          fs.readdirSync("/proc/self/fd").flatMap((fd) => {
            try {
              return [fs.readlinkSync(`/proc/self/fd/${fd}`)]
            } catch {
              return []
            }
          })
        assert.include(links(), filename)
        yield* engine.rpc.call("bdev_aio_delete", { name: "a" })
        while (links().includes(filename)) yield* Effect.sleep("1 millis")
      }).pipe(Effect.scoped),
    { timeout: 10_000 }
  )

  it.live("does not wait for the other end of a pipe", () =>
    Effect.gen(function* () {
      const filename = path.join(yield* scratchFolder, "pipe")
      execFileSync("sh", ["-c", 'mkfifo "$0"', filename])
      const engine = yield* makeEngine()
      const made = yield* engine.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512, readonly: true })
      assert.strictEqual(made, "a")
      const opened = yield* open(engine, "a")
      assert.strictEqual(opened.descriptor.info.numBlocks, 0)
    }).pipe(Effect.scoped)
  )
})
