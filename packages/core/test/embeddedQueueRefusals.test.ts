/** What a queue of the embedded engine refuses. */
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import type { Entry, SlabRange } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as path from "node:path"
import type { Slab } from "../src/internal/engine/engine.ts"
import {
  command,
  type Ended,
  makeEngine,
  ok,
  open,
  read,
  run,
  slab,
  transfer,
  vectored
} from "./support/embeddedEngine.ts"
import { EBADF, EFAULT, EINVAL, ENOTSUP, refused, world, type World } from "./support/embeddedQueue.ts"
import { scratchFolder } from "./support/scratch.ts"

describe("a queue refuses, in the order and with the words of the native reactor", () => {
  const goodRead = ({ disk, memory }: World) => transfer(disk, Opcode.Read, memory, 0)
  const segment = (memory: Slab, offsetBytes: number, lengthBytes: number): SlabRange => ({
    slab: memory,
    offsetBytes,
    lengthBytes
  })
  const cases: ReadonlyArray<readonly [name: string, entry: (world: World) => Partial<Entry>, ended: Ended]> = [
    ["an opcode that is none", () => ({ opcode: 77 as Opcode }), refused(EINVAL, Detail.UnknownOpcode)],
    ["an abort without a target", () => ({ opcode: Opcode.Abort }), refused(2, Detail.UnknownTarget)],
    [
      "a timer of NaN microseconds",
      () => ({ opcode: Opcode.Timer, offsetBlocks: Number.NaN }),
      refused(EINVAL, Detail.None)
    ],
    ["a channel that never was", (w) => ({ ...goodRead(w), channelSlot: 99 }), refused(EBADF, Detail.StaleChannel)],
    [
      "a channel of another life",
      (w) => ({ ...goodRead(w), channelGeneration: w.disk.channel.generation + 1 }),
      refused(EBADF, Detail.StaleChannel)
    ],
    [
      "a write on a read-only channel",
      (w) => transfer(w.readOnly, Opcode.Write, w.memory, 0),
      refused(EBADF, Detail.ReadOnly)
    ],
    ["an unmap on a read-only channel", (w) => command(w.readOnly, Opcode.Unmap), refused(EBADF, Detail.ReadOnly)],
    [
      "write zeroes on a read-only channel",
      (w) => command(w.readOnly, Opcode.WriteZeroes),
      refused(EBADF, Detail.ReadOnly)
    ],
    ["a flush on a read-only channel", (w) => command(w.readOnly, Opcode.Flush), refused(EBADF, Detail.ReadOnly)],
    [
      "a flush of a bdev that has none",
      (w) => command(w.nullDisk, Opcode.Flush),
      refused(ENOTSUP, Detail.NotSupported)
    ],
    [
      "an unmap of a bdev that has none",
      (w) => command(w.nullDisk, Opcode.Unmap),
      refused(ENOTSUP, Detail.NotSupported)
    ],
    ["no blocks", (w) => ({ ...goodRead(w), lengthBlocks: 0 }), refused(EINVAL, Detail.BlockRange)],
    ["blocks behind the end", (w) => ({ ...goodRead(w), offsetBlocks: 57 }), refused(EINVAL, Detail.BlockRange)],
    [
      "blocks far behind the end",
      (w) => ({ ...goodRead(w), offsetBlocks: Number.MAX_SAFE_INTEGER }),
      refused(EINVAL, Detail.BlockRange)
    ],
    ["a negative offset", (w) => ({ ...goodRead(w), offsetBlocks: -1 }), refused(EINVAL, Detail.BlockRange)],
    ["an offset of NaN", (w) => ({ ...goodRead(w), offsetBlocks: Number.NaN }), refused(EINVAL, Detail.BlockRange)],
    ["half a block", (w) => ({ ...goodRead(w), offsetBlocks: 0.5 }), refused(EINVAL, Detail.BlockRange)],
    ["a slab that never was", (w) => ({ ...goodRead(w), slabSlot: 99 }), refused(EBADF, Detail.StaleSlab)],
    [
      "a slab of another life",
      (w) => ({ ...goodRead(w), slabGeneration: w.memory.generation + 1 }),
      refused(EBADF, Detail.StaleSlab)
    ],
    [
      "a piece behind the end of the slab",
      (w) => ({ ...goodRead(w), slabOffset: 512 }),
      refused(EFAULT, Detail.SlabRange)
    ],
    ["a piece before the slab", (w) => ({ ...goodRead(w), slabOffset: -512 }), refused(EFAULT, Detail.SlabRange)],
    [
      "65 segments",
      (w) =>
        vectored(
          w.disk,
          Opcode.Read,
          Array.from({ length: 65 }, () => segment(w.memory, 0, 512)),
          0
        ),
      refused(EINVAL, Detail.TooManySegments)
    ],
    [
      "segments of something without memory",
      (w) => ({ ...command(w.disk, Opcode.Unmap), segments: [segment(w.memory, 0, 512)] }),
      refused(EINVAL, Detail.TooManySegments)
    ],
    [
      "a stale segment among good ones",
      (w) =>
        vectored(
          w.disk,
          Opcode.Read,
          [segment(w.memory, 0, 512), { ...segment(w.memory, 0, 512), slab: { slot: 99, generation: 1 } }],
          0
        ),
      refused(EBADF, Detail.StaleSlab)
    ],
    [
      "a segment behind the end of its slab",
      (w) => vectored(w.disk, Opcode.Read, [segment(w.memory, 0, 512), segment(w.memory, 4096, 512)], 0),
      refused(EFAULT, Detail.SlabRange)
    ],
    [
      "an empty segment",
      (w) => vectored(w.disk, Opcode.Read, [segment(w.memory, 0, 512), segment(w.memory, 0, 0)], 0),
      refused(EINVAL, Detail.LengthMismatch)
    ],
    [
      "segments that are not the range",
      (w) => ({ ...vectored(w.disk, Opcode.Read, [segment(w.memory, 0, 512)], 0), lengthBlocks: 2 }),
      refused(EINVAL, Detail.LengthMismatch)
    ]
  ]
  it.effect.each(cases)("%s", ([, entry, ended]) =>
    Effect.gen(function* () {
      const here = yield* world
      assert.deepStrictEqual(yield* run(here.queue, entry(here)), ended)
      assert.strictEqual(here.queue.inFlight, 0)
      assert.deepStrictEqual(yield* run(here.queue, goodRead(here)), ok, "the queue goes on")
      // Nothing of what was refused holds the memory.
      here.engine.memory.free(here.memory)
      assert.strictEqual((yield* here.engine.usage).slabs, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("a channel of another thread", () =>
    Effect.gen(function* () {
      const { disk, engine, memory } = yield* world
      const thread = yield* engine.spawn({ name: "other", cpuMask: undefined })
      const entry = transfer(disk, Opcode.Read, memory, 0)
      assert.deepStrictEqual(yield* run(thread.queue, entry), refused(EBADF, Detail.StaleChannel))
    }).pipe(Effect.scoped)
  )

  it.live("memory that is not aligned as the bdev wants it", () =>
    Effect.gen(function* () {
      const filename = path.join(yield* scratchFolder, "disk.img")
      fs.writeFileSync(filename, Buffer.alloc(65_536))
      const engine = yield* makeEngine()
      yield* engine.rpc.call("bdev_aio_create", { name: "a", filename, block_size: 512 })
      const disk = yield* open(engine, "a")
      assert.strictEqual(disk.descriptor.info.bufferAlignmentBytes, 512)
      const loose = yield* slab(engine, 1024, 256)
      const tight = yield* slab(engine, 4096, 512)
      const { queue } = engine.mainThread
      assert.deepStrictEqual(yield* read(disk, loose, 0), refused(EINVAL, Detail.Misaligned))
      const piece = { ...transfer(disk, Opcode.Read, tight, 0), lengthBlocks: 1 }
      assert.deepStrictEqual(yield* run(queue, { ...piece, slabOffset: 100 }), refused(EINVAL, Detail.Misaligned))
      assert.deepStrictEqual(yield* run(queue, { ...piece, slabOffset: 1024 }), ok)
      const segments = [
        { slab: tight, offsetBytes: 0, lengthBytes: 512 },
        { slab: tight, offsetBytes: 700, lengthBytes: 512 }
      ]
      assert.deepStrictEqual(
        yield* run(queue, vectored(disk, Opcode.Read, segments, 0)),
        refused(EINVAL, Detail.Misaligned)
      )
    }).pipe(Effect.scoped)
  )
})
