import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert, layer } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as fs from "node:fs"
import * as path from "node:path"
import { scratchFolder } from "./support/scratch.ts"

const namesOfBdevs = Effect.map(Bdev.list, (all) => all.map(({ name }) => name))

layer(Spdk.layerEmbedded())("bdev layers", (it) => {
  it.effect("make a bdev, provide it for writing, and delete it", () =>
    Effect.gen(function* () {
      const use = Effect.gen(function* () {
        const bdev = yield* Bdev.Bdev
        assert.isTrue(Bdev.isBdev(bdev))
        assert.isTrue(bdev.writable)
        yield* bdev.writeBytes(0, new Uint8Array(4096).fill(3))
        assert.strictEqual((yield* bdev.readBytes(0, 4096))[4095], 3)
        assert.include(yield* namesOfBdevs, bdev.name)
        return bdev
      })
      for (const one of [
        Bdev.layerMalloc({ size: "1 MiB" }),
        Bdev.layerCreate({
          method: "bdev_malloc_create",
          params: { block_size: 512, num_blocks: 64 },
          deleteMethod: "bdev_malloc_delete"
        })
      ]) {
        const bdev = yield* Effect.provide(use, one)
        assert.strictEqual((yield* Effect.flip(bdev.readBytes(0, 4096))).reason._tag, "Released")
        assert.deepStrictEqual(yield* namesOfBdevs, [])
      }
    })
  )

  it.effect("stand on each other", () =>
    Effect.gen(function* () {
      const stack = Bdev.layerPassthru({ name: "top" }).pipe(
        Layer.provide(Bdev.layerDelay({ name: "middle", readMicros: 1 })),
        Layer.provide(Bdev.layerMalloc({ name: "bottom", size: "64 KiB" }))
      )
      yield* Effect.gen(function* () {
        const bdev = yield* Bdev.Bdev
        assert.strictEqual(bdev.name, "top")
        yield* bdev.writeBytes(4096, new Uint8Array(4096).fill(7))
        const bottom = yield* Bdev.open("bottom")
        assert.strictEqual((yield* bottom.readBytes(4096, 4096))[0], 7)
      }).pipe(Effect.scoped, Effect.provide(stack))
      assert.deepStrictEqual(yield* namesOfBdevs, [])
    })
  )

  it.effect("read their options from Config", () =>
    Effect.gen(function* () {
      const folder = yield* scratchFolder
      const file = path.join(folder, "disk.img")
      const config = Bdev.layerFileConfig({ path: Config.String("DISK"), size: Config.String("DISK_SIZE") })
      const sizeBytes = yield* Effect.map(Bdev.Bdev, (bdev) => bdev.sizeBytes).pipe(
        Effect.provide(config),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: { DISK: file, DISK_SIZE: "2 MiB" } })))
      )
      assert.strictEqual(sizeBytes, 2 * 1024 ** 2)
      assert.strictEqual(fs.statSync(file).size, 2 * 1024 ** 2)
      const missing = yield* Effect.flip(
        Effect.provide(Bdev.Bdev, Bdev.layerOpenConfig({ name: Config.String("NOT_THERE") }))
      )
      assert.strictEqual(missing._tag, "ConfigError")
    })
  )

  it.effect("open what is there, read-only unless told otherwise", () =>
    Effect.gen(function* () {
      const name = yield* Bdev.createMalloc({ numBlocks: 8 })
      const bdev = yield* Effect.provide(Bdev.Bdev, Bdev.layerOpen({ name }))
      assert.isFalse(bdev.writable)
    })
  )

  const sizes: ReadonlyArray<readonly [size: Bdev.Size, bytes: number]> = [
    [4096, 4096],
    ["8192", 8192],
    ["1 MiB", 1024 ** 2],
    ["1MiB", 1024 ** 2],
    ["1.5 MiB", 1.5 * 1024 ** 2],
    ["10.24 MB", 10_240_000],
    ["0.5 GiB", 0.5 * 1024 ** 3]
  ]
  it.effect.each(sizes)("understand the size %j", ([size, bytes]) =>
    Effect.gen(function* () {
      const { sizeBytes } = yield* Effect.flatMap(Bdev.createNull({ size, blockSize: 512 }), Bdev.find)
      assert.strictEqual(sizeBytes, bytes)
    })
  )

  it.effect("a prepared batch reads what was written", () =>
    Effect.gen(function* () {
      const bdev = yield* Effect.flatMap(Bdev.createMalloc({ size: "1 MiB" }), (name) =>
        Bdev.open(name, { write: true })
      )
      const arena = yield* DmaBuffer.make(4096 * 16)
      const entries = Array.from({ length: 16 }, (_, i) => ({
        offsetBytes: i * 4096,
        buffer: arena.slice(i * 4096, 4096)
      }))
      entries.forEach(({ buffer }, i) => buffer.bytes.fill(i + 1))
      const writes = yield* bdev.prepareWrites(entries)
      yield* writes.run
      const reads = yield* bdev.prepareReads(entries)
      for (let round = 0; round < 16; round++) {
        for (let i = 0; i < 16; i++) reads.offsetsBytes[i] = ((i + round) % 16) * 4096
        yield* reads.run
        assert.deepStrictEqual(
          entries.map(({ buffer }) => buffer.bytes[4095]),
          entries.map((_, i) => ((i + round) % 16) + 1)
        )
      }
      assert.strictEqual((yield* bdev.stats).readOps, 16 * 16)
    })
  )

  it.effect("a bdev that somebody else deleted is none of the scope's", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.flatMap(Bdev.createMalloc({ numBlocks: 8 }), (name) => Rpc.call("bdev_malloc_delete", { name }))
      )
      assert.deepStrictEqual(yield* namesOfBdevs, [])
    })
  )

  it.effect("info is decoded", () =>
    Effect.gen(function* () {
      const info = yield* Effect.flatMap(Bdev.createMalloc({ numBlocks: 8, blockSize: 512 }), Bdev.find)
      assert.include(info, {
        productName: "Malloc disk",
        blockSize: 512,
        numBlocks: 8,
        sizeBytes: 4096,
        claimed: false,
        zoned: false
      })
      assert.isTrue(info.supportedIoTypes.has("unmap"))
      assert.isFalse(info.supportedIoTypes.has("nvme_admin"))
      assert.include(info.aliases, info.uuid)
    })
  )
})
