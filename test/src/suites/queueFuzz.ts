/**
 * Random entries straight into an engine's queue, past the checks of the public modules. Every one completes exactly
 * once; one that is right succeeds, one that is wrong fails; no byte moves that should not.
 */
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { type Entry, type Handle, makeEntry, type RequestId, type SlabRange } from "@effect-spdk/native/Queue"
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type Capabilities, type EngineLayer, long, scratchFile } from "../support/engines.ts"
import { blockSize, contract, fresh, pattern, sameBytes, until } from "../support/harness.ts"
import { type Engine, EngineService } from "../support/internals.ts"
import { type RandomSource, seeded } from "../support/random.ts"

const numBlocks = 256
const slabBytes = 64 * 1024

/** What the entries can name: things that are alive, and things that were. */
interface World {
  readonly engine: Engine
  readonly writable: Handle
  readonly readOnly: Handle
  readonly slabs: ReadonlyArray<Handle>
  readonly deadChannel: Handle
  readonly deadSlab: Handle
  readonly alignmentBytes: number
}

type Verdict = "ok" | "error" | "either"

const openChannel = (engine: Engine, name: string, write: boolean) =>
  Effect.gen(function* () {
    const descriptor = yield* Effect.acquireRelease(engine.openBdev(name, { write, onEvent: () => {} }), (opened) =>
      engine.closeBdev(opened)
    )
    const channel = yield* Effect.acquireRelease(engine.openChannel(engine.mainThread, descriptor), (opened) =>
      engine.closeChannel(engine.mainThread, opened)
    )
    return { descriptor, channel }
  })

const malloc = Effect.suspend(() => Bdev.createMalloc({ name: fresh("fuzzed"), blockSize, numBlocks }))

/** Needs memory that is aligned to its blocks. */
const file = Effect.gen(function* () {
  const path = yield* scratchFile
  return yield* Bdev.createFile({
    name: fresh("fuzzed"),
    path,
    blockSize,
    size: numBlocks * blockSize,
    fallocate: true
  })
})

const makeWorld = Effect.fnUntraced(function* (create: typeof malloc | typeof file) {
  const engine = yield* EngineService
  const name = yield* create
  const writable = yield* openChannel(engine, name, true)
  const readOnly = yield* openChannel(engine, name, false)
  const dead = yield* Effect.scoped(openChannel(engine, name, true))
  const slab = Effect.acquireRelease(engine.memory.allocate(slabBytes, 4096), (taken) =>
    Effect.sync(() => engine.memory.free(taken))
  )
  const slabs = yield* Effect.all([slab, slab, slab])
  const deadSlab = yield* Effect.scoped(slab)
  const world: World = {
    engine,
    writable: writable.channel,
    readOnly: readOnly.channel,
    slabs: slabs.map(({ generation, slot }) => ({ generation, slot })),
    deadChannel: dead.channel,
    deadSlab,
    alignmentBytes: writable.descriptor.info.bufferAlignmentBytes
  }
  return { world, name }
})

const isSame = (left: Handle, slot: number, generation: number): boolean =>
  left.slot === slot && left.generation === generation

const wild = (random: RandomSource): number =>
  random.pick([
    0,
    1,
    2,
    7,
    63,
    64,
    255,
    256,
    511,
    512,
    65_535,
    65_536,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    random.word()
  ])

const wildBlocks = (random: RandomSource): number =>
  random.pick([
    0,
    1,
    random.below(numBlocks),
    numBlocks - 1,
    numBlocks,
    numBlocks + 1,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 48,
    Number.MAX_SAFE_INTEGER,
    random.word()
  ])

const handle = (random: RandomSource, good: ReadonlyArray<Handle>, dead: Handle): Handle => {
  if (random.chance(0.85)) return random.pick(good)
  return random.pick([
    dead,
    { slot: wild(random), generation: wild(random) },
    { slot: random.pick(good).slot, generation: wild(random) },
    { slot: wild(random), generation: random.pick(good).generation }
  ])
}

const slabOffset = (random: RandomSource, blocks: number): number => {
  if (random.chance(0.9)) return blockSize * random.below(blocks)
  return random.chance(0.5) ? blockSize * random.below(blocks) + random.below(blockSize) : wild(random)
}

const opcodeOf = (random: RandomSource): Opcode => {
  if (random.chance(0.9)) return random.pick(Object.values(Opcode).filter((one) => one !== Opcode.Abort))
  // A number that is no opcode is the point of this test.
  return random.pick([Opcode.Abort, 9, 10, 77, 128, 255]) as Opcode
}

const randomSegments = (random: RandomSource, world: World, lengthBytes: number): ReadonlyArray<SlabRange> => {
  const pieces: Array<SlabRange> = []
  let left = lengthBytes
  while (left > 0 && pieces.length < 70) {
    const length = Math.min(left, blockSize * (1 + random.below(3)))
    pieces.push({
      slab: handle(random, world.slabs, world.deadSlab),
      offsetBytes: slabOffset(random, 64),
      lengthBytes: random.chance(0.97) ? length : wild(random)
    })
    left -= length
  }
  return pieces
}

const fill = (entry: Entry, random: RandomSource, world: World): void => {
  const channel = handle(random, [world.writable, world.writable, world.writable, world.readOnly], world.deadChannel)
  const slab = handle(random, world.slabs, world.deadSlab)
  const blocks = random.chance(0.9) ? 1 + random.below(32) : wildBlocks(random)
  const lengthBytes = blocks * blockSize
  entry.opcode = opcodeOf(random)
  entry.channelSlot = channel.slot
  entry.channelGeneration = channel.generation
  entry.slabSlot = slab.slot
  entry.slabGeneration = slab.generation
  entry.slabOffset = slabOffset(random, 96)
  entry.lengthBlocks = blocks
  entry.offsetBlocks = random.chance(0.9) ? random.below(numBlocks) : wildBlocks(random)
  entry.segments = undefined
  const isTransfer = entry.opcode === Opcode.Read || entry.opcode === Opcode.Write
  if (isTransfer && random.chance(0.3))
    entry.segments = randomSegments(random, world, Math.min(lengthBytes, 70 * blockSize))
  // A timer of an hour is right and would never end.
  if (entry.opcode === Opcode.Timer) entry.offsetBlocks = random.below(500)
}

const liveSlab = (world: World, slot: number, generation: number): boolean =>
  world.slabs.some((slab) => isSame(slab, slot, generation))

const judgeTransfer = (entry: Entry, world: World): Verdict => {
  if (entry.opcode === Opcode.Write && !isSame(world.writable, entry.channelSlot, entry.channelGeneration))
    return "error"
  const ranges: ReadonlyArray<SlabRange> = entry.segments ?? [
    {
      slab: { slot: entry.slabSlot, generation: entry.slabGeneration },
      offsetBytes: entry.slabOffset,
      lengthBytes: entry.lengthBlocks * blockSize
    }
  ]
  if (ranges.length === 0 || ranges.length > 64) return "error"
  let total = 0
  for (const range of ranges) {
    if (!liveSlab(world, range.slab.slot, range.slab.generation)) return "error"
    if (range.offsetBytes + range.lengthBytes > slabBytes || range.lengthBytes === 0) return "error"
    if (range.offsetBytes % world.alignmentBytes !== 0) return "error"
    // Whether pieces must be whole blocks each is the device's business.
    if (range.lengthBytes % blockSize !== 0) return "either"
    total += range.lengthBytes
  }
  return total === entry.lengthBlocks * blockSize ? "ok" : "error"
}

/** What must become of an entry, by the rules of the layout alone. */
const judge = (entry: Entry, world: World): Verdict => {
  if (entry.opcode === Opcode.Nop || entry.opcode === Opcode.Timer) return "ok"
  // An abort that guesses a request of the moment is right.
  if (entry.opcode === Opcode.Abort) return "either"
  if (entry.opcode > Opcode.Timer) return "error"
  const writable = isSame(world.writable, entry.channelSlot, entry.channelGeneration)
  const readOnly = isSame(world.readOnly, entry.channelSlot, entry.channelGeneration)
  if (!writable && !readOnly) return "error"
  if (entry.opcode === Opcode.Reset) return "either"
  if (entry.lengthBlocks === 0 || entry.offsetBlocks + entry.lengthBlocks > numBlocks) return "error"
  if (entry.opcode === Opcode.Read || entry.opcode === Opcode.Write) return judgeTransfer(entry, world)
  return writable ? "ok" : "error"
}

const show = (entry: Entry): string => JSON.stringify(entry)

/** Whether a completion says what was judged. What is right may still be aborted where resets and aborts are. */
const agree = (verdict: Verdict, status: number, detail: number, resets: boolean): boolean => {
  if (verdict === "either") return true
  if (verdict === "error") return status < 0
  return status === 0 || (resets && detail === Detail.None)
}

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    for (const [what, create, resets] of [
      ["a malloc bdev", malloc, false],
      ["a malloc bdev, resets and aborts among them", malloc, true],
      ["a file bdev", file, false]
    ] as const) {
      check(
        `random entries for ${what}`,
        () =>
          seeded((random) =>
            Effect.gen(function* () {
              const { name: bdevName, world } = yield* makeWorld(create)
              const canary = yield* Bdev.createMalloc({ name: fresh("canary"), blockSize, numBlocks })
              // Closed while entries are random: one of them may well guess a channel that is open.
              yield* Effect.scoped(
                Effect.flatMap(Bdev.open(canary, { write: true }), (bdev) =>
                  bdev.writeBytes(0, pattern(numBlocks * blockSize, 7))
                )
              )
              const bystander = yield* Effect.acquireRelease(world.engine.memory.allocate(slabBytes, 4096), (taken) =>
                Effect.sync(() => world.engine.memory.free(taken))
              )
              bystander.view.set(pattern(slabBytes, 8))

              const { queue } = world.engine.mainThread
              const count = long ? 1_000_000 : 40_000
              const completions = new Uint8Array(count)
              const problems: Array<string> = []
              const verdicts: Array<Verdict> = []
              const shown: Array<string> = []
              const seen = { ok: 0, error: 0, either: 0 }
              let submitting = false
              const completion = {
                complete(index: number, status: number, detail: number): void {
                  if (submitting) problems.push(`${index} completed before submit returned`)
                  completions[index] = (completions[index] ?? 0) + 1
                  const verdict = verdicts[index] ?? "either"
                  if (!agree(verdict, status, detail, resets)) {
                    problems.push(`${shown[index]} is ${verdict}, but ended with status ${status}, detail ${detail}`)
                  }
                }
              }
              const entry = makeEntry()
              const ids: Array<RequestId> = []
              for (let index = 0; index < count;) {
                for (let burst = 1 + random.below(3000); burst > 0 && index < count; burst--, index++) {
                  fill(entry, random, world)
                  while (!resets && (entry.opcode === Opcode.Reset || entry.opcode === Opcode.Abort))
                    fill(entry, random, world)
                  verdicts[index] = judge(entry, world)
                  shown[index] = show(entry)
                  seen[judge(entry, world)]++
                  submitting = true
                  ids.push(queue.submit(entry, completion, index))
                  submitting = false
                }
                yield* until(
                  "the burst completes",
                  Effect.sync(() => queue.inFlight === 0)
                )
                ids.length = 0
                assert.deepStrictEqual(problems.slice(0, 5), [])
              }
              assert.isTrue(
                completions.every((times) => times === 1),
                "each completed exactly once"
              )
              // The generator is worth something only while it makes both kinds.
              assert.isAbove(seen.ok, count / 10)
              assert.isAbove(seen.error, count / 10)
              sameBytes(bystander.view, pattern(slabBytes, 8), "memory that no entry named")
              const canaryBdev = yield* Bdev.open(canary)
              sameBytes(
                yield* canaryBdev.readBytes(0, numBlocks * blockSize),
                pattern(numBlocks * blockSize, 7),
                "the other bdev"
              )
              const bdev = yield* Bdev.open(bdevName)
              yield* bdev.readBytes(0, numBlocks * blockSize)
            })
          ),
        { timeoutMillis: long ? 1_800_000 : 60_000 }
      )
    }

    check(
      "random aborts of random requests: each still completes exactly once",
      () =>
        seeded((random) =>
          Effect.gen(function* () {
            const { world } = yield* makeWorld(malloc)
            const { queue } = world.engine.mainThread
            const count = long ? 300_000 : 20_000
            const completions = new Uint8Array(count)
            const completion = {
              complete: (index: number) => void (completions[index] = (completions[index] ?? 0) + 1)
            }
            const entry = makeEntry()
            const ids: Array<RequestId> = []
            for (let index = 0; index < count;) {
              for (let burst = 1 + random.below(2000); burst > 0 && index < count; burst--, index++) {
                fill(entry, random, world)
                // Some timers that only an abort ends.
                const endless = entry.opcode === Opcode.Timer && random.chance(0.5)
                if (endless) entry.offsetBlocks = 3_600_000_000
                const id = queue.submit(entry, completion, index)
                ids.push(id)
                if (endless) queue.abort(id)
                if (random.chance(0.3)) queue.abort(random.pick(ids))
              }
              // Ids of requests that have completed are ignored.
              for (let late = 0; late < 20 && ids.length > 0; late++) queue.abort(random.pick(ids))
              yield* until(
                "the burst completes",
                Effect.sync(() => queue.inFlight === 0)
              )
              for (let late = 0; late < 20; late++) queue.abort(random.pick(ids))
              ids.length = 0
            }
            queue.abort(0)
            queue.abort(0xffffffff)
            queue.abort(-1)
            assert.isTrue(
              completions.every((times) => times === 1),
              "each completed exactly once"
            )
          })
        ),
      { timeoutMillis: long ? 1_800_000 : 60_000 }
    )
  })
