/**
 * Random operations against a byte array that should always hold what the bdev holds. A failure is shrunk to few
 * operations and printed with what replays it.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type * as Spdk from "@effect-spdk/core/Spdk"
import type * as SpdkError from "@effect-spdk/core/SpdkError"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Capabilities, type EngineLayer, long, scratchFile } from "../support/engines.ts"
import { blockSize, contract, failsWith, fresh, leavesNothing, pattern, sameBytes } from "../support/harness.ts"
import type { EngineService } from "../support/internals.ts"
import { type RandomSource, seed, seeded } from "../support/random.ts"

const numBlocks = 64
const sizeBytes = numBlocks * blockSize

const kinds = [
  "read",
  "write",
  "readv",
  "writev",
  "readBytes",
  "writeBytes",
  "readBatch",
  "writeBatch",
  "unmap",
  "writeZeroes",
  "flush",
  "reset",
  "stream",
  "sink",
  "reopen"
] as const

/** `at` and `length` are taken modulo what fits, so that every generated value is an operation. */
const Operation = Schema.Struct({
  kind: Schema.Literals(kinds),
  at: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: numBlocks - 1 })),
  length: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 16 })),
  fill: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))
})
type Operation = typeof Operation.Type

const operations = Arbitrary.array(Arbitrary.schema(Operation), { minLength: 20, maxLength: long ? 300 : 80 })

interface Subject {
  bdev: Bdev.Bdev
  readonly reopen: Effect.Effect<Bdev.Bdev, Bdev.OpenError, EngineService>
  readonly model: Uint8Array
}

/** Runs what the bdev supports; what it does not must fail with NotSupported and change nothing. */
const did = (bdev: Bdev.Bdev, operation: Bdev.BdevOperation, effect: Effect.Effect<void, Bdev.IoError>) =>
  bdev.supports(operation) ? Effect.as(effect, true) : Effect.as(failsWith(effect, "NotSupported"), false)

/** Applies one operation to bdev and model, and compares what it read. */
const apply = (subject: Subject, operation: Operation) =>
  Effect.gen(function* () {
    const { bdev, model } = subject
    const blocks = Math.min(operation.length, numBlocks - operation.at)
    const offset = operation.at * blockSize
    const length = blocks * blockSize
    const bytes = pattern(length, operation.fill)
    const there = model.subarray(offset, offset + length)
    const what = JSON.stringify(operation)
    const pieces = (buffer: DmaBuffer.DmaBuffer) =>
      Array.from({ length: blocks }, (_, block) => buffer.slice(block * blockSize, blockSize))
    const entries = (buffer: DmaBuffer.DmaBuffer) =>
      pieces(buffer).map((piece, block) => ({ offsetBytes: offset + block * blockSize, buffer: piece }))
    const buffer = yield* DmaBuffer.make(length)
    switch (operation.kind) {
      case "read": {
        yield* bdev.read(offset, buffer)
        return sameBytes(buffer.bytes, there, what)
      }
      case "readv": {
        yield* bdev.readv(offset, pieces(buffer))
        return sameBytes(buffer.bytes, there, what)
      }
      case "readBatch": {
        yield* bdev.readBatch(entries(buffer))
        return sameBytes(buffer.bytes, there, what)
      }
      case "readBytes":
        return sameBytes(yield* bdev.readBytes(offset, length), there, what)
      case "stream": {
        const chunks = yield* Stream.runCollect(
          bdev.stream({ offsetBytes: offset, lengthBytes: length, chunkBytes: 1024 })
        )
        return sameBytes(new Uint8Array(Buffer.concat(chunks)), there, what)
      }
      case "write":
        buffer.bytes.set(bytes)
        yield* bdev.write(offset, buffer)
        return model.set(bytes, offset)
      case "writev":
        buffer.bytes.set(bytes)
        yield* bdev.writev(offset, pieces(buffer))
        return model.set(bytes, offset)
      case "writeBatch":
        buffer.bytes.set(bytes)
        yield* bdev.writeBatch(entries(buffer))
        return model.set(bytes, offset)
      case "writeBytes":
        yield* bdev.writeBytes(offset, bytes)
        return model.set(bytes, offset)
      case "sink": {
        // Not whole blocks: the sink keeps the rest of the last one.
        const part = bytes.subarray(0, 1 + (operation.fill % length))
        yield* Stream.run(Stream.make(part.subarray(0, 100), part.subarray(100)), bdev.sink({ offsetBytes: offset }))
        return model.set(part, offset)
      }
      case "unmap":
        if (yield* did(bdev, "unmap", bdev.unmap(offset, length))) there.fill(0)
        return
      case "writeZeroes":
        if (yield* did(bdev, "writeZeroes", bdev.writeZeroes(offset, length))) there.fill(0)
        return
      case "flush":
        return void (yield* did(bdev, "flush", bdev.flush({ offsetBytes: offset, lengthBytes: length })))
      case "reset":
        return void (yield* did(bdev, "reset", bdev.reset))
      case "reopen": {
        subject.bdev = yield* subject.reopen
        return
      }
    }
  }).pipe(Effect.scoped)

/** What a property needs and may fail with. */
type Property = Effect.Effect<void, SpdkError.SpdkError, Spdk.Services | Scope.Scope>

/** The same property for every kind of bdev of 64 blocks. */
const agrees =
  (create: Effect.Effect<string, SpdkError.SpdkError, Spdk.Services | Scope.Scope>) =>
  (list: ReadonlyArray<Operation>): Property =>
    Effect.gen(function* () {
      const created = yield* create
      const scope = yield* Effect.scope
      const reopen = Scope.provide(Bdev.open(created, { write: true }), scope)
      const subject: Subject = { bdev: yield* reopen, reopen, model: new Uint8Array(sizeBytes) }
      for (const operation of list) yield* apply(subject, operation)
      sameBytes(yield* subject.bdev.readBytes(0, sizeBytes), subject.model, "the whole bdev at the end")
    })

const malloc = Effect.suspend(() => Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks }))

const file = Effect.gen(function* () {
  const path = yield* scratchFile
  return yield* Bdev.createFile({ name: fresh("file"), path, blockSize, size: sizeBytes, fallocate: true })
})

const uring = Effect.gen(function* () {
  const path = yield* scratchFile
  return yield* Bdev.createUring({ name: fresh("uring"), path, blockSize, size: sizeBytes })
})

/** The second of three parts of a larger bdev. */
const part = Effect.gen(function* () {
  const base = yield* Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks: numBlocks * 3 })
  const parts = yield* Bdev.createSplit({ base, count: 3 })
  const middle = parts[1]
  assert.isDefined(middle)
  return middle
})

const stacked = Effect.gen(function* () {
  const base = yield* malloc
  const passthru = yield* Bdev.createPassthru({ base, name: fresh("passthru") })
  const { name } = yield* Bdev.createError({ base: passthru })
  return yield* Bdev.createDelay({ base: name, name: fresh("delay"), readMicros: 50, writeMicros: 50 })
})

/** Fibers that own a stripe each, at once on several threads, each against its part of the model. */
const concurrently = (random: RandomSource) =>
  Effect.gen(function* () {
    const created = yield* malloc
    const bdev = yield* Bdev.open(created, { write: true })
    const model = new Uint8Array(sizeBytes)
    const threads = yield* Effect.forEach([1, 2, 3], () => SpdkThread.spawn({ name: fresh("model") }))
    const stripes = 16
    const width = numBlocks / stripes
    yield* Effect.forEach(
      Array.from({ length: stripes }),
      (_, stripe) => {
        const subject: Subject = { bdev, reopen: Effect.succeed(bdev), model }
        const steps = Effect.gen(function* () {
          for (let step = 0; step < (long ? 500 : 60); step++) {
            const at = stripe * width + random.below(width)
            // A reset aborts what the others have in flight.
            const kind = random.pick(kinds.filter((one) => one !== "reset" && one !== "reopen"))
            const length = 1 + random.below((stripe + 1) * width - at)
            yield* apply(subject, { kind, at, length, fill: 1 + random.below(1_000_000) })
          }
        })
        const thread = threads[stripe % 4]
        return thread === undefined ? steps : steps.pipe(SpdkThread.on(thread))
      },
      { concurrency: "unbounded", discard: true }
    )
    sameBytes(yield* bdev.readBytes(0, sizeBytes), model, "the whole bdev at the end")
  })

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check, it) => {
    const property = (what: string, create: Parameters<typeof agrees>[0], runs: number): void =>
      it.effect.prop(
        `${what} agrees with a byte array, whatever is done to it (seed ${seed})`,
        [operations],
        ([list]) => leavesNothing(agrees(create)(list)),
        { timeout: long ? 1_800_000 : 60_000, arbitrary: { seed, runs: long ? runs * 20 : runs } }
      )
    property("a malloc bdev", malloc, 60)
    property("a file bdev", file, 30)
    property("a part of a split bdev", part, 30)
    property("a stack of passthru, error and delay bdevs", stacked, 15)
    if (capabilities.uring) property("a uring bdev", uring, 20)

    check("a malloc bdev agrees with a byte array when 16 fibers work on it from four threads", () =>
      seeded(concurrently)
    )
  })
