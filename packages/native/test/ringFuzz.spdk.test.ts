/** Random words straight into the rings of a real reactor, past every check on this side. */
import { Control, Opcode, Segment, Sqe, Wide } from "@effect-spdk/native/Layout"
import { afterAll, beforeAll, expect, it } from "vitest"
import { decodeEntry, slotsOfEntry } from "./support/entry.ts"
import { Random } from "./support/random.ts"
import { describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const long = process.env["EFFECT_SPDK_LONG"] === "1"
const numBlocks = 256
const blockSize = 512
const slabBytes = 64 * 1024
const sqEntries = 256
/** Everything that is in flight at once has a place in here. */
const cqEntries = 1024
const canaryByte = 0xa5

type Pair = readonly [slot: number, generation: number]

interface World {
  readonly spdk: RawSpdk
  readonly descriptors: readonly [writable: number, readOnly: number]
  readonly slabs: ReadonlyArray<Pair>
  readonly deadSlab: Pair
  readonly canary: Uint8Array
}

const setUp = async (): Promise<World> => {
  const spdk = new RawSpdk()
  const started = await spdk.start()
  expect(started).toMatchObject({ status: 0 })
  await spdk.rpc("bdev_malloc_create", { name: "fuzzed", num_blocks: numBlocks, block_size: blockSize })
  const allocate = (): Pair => {
    const slab = spdk.addon.dmaAllocateNow(slabBytes, 4096)
    if (typeof slab === "number") throw new Error(`no memory: ${slab}`)
    return slab
  }
  const view = ([slot, generation]: Pair): ArrayBuffer => {
    const buffer = spdk.addon.dmaView(slot, generation)
    if (buffer === undefined) throw new Error("no view")
    return buffer
  }
  const slabs = [allocate(), allocate(), allocate()]
  const canary = new Uint8Array(view(allocate())).fill(canaryByte)
  const deadSlab = allocate()
  spdk.addon.dmaFree(...deadSlab, view(deadSlab))
  return {
    spdk,
    descriptors: [await spdk.open("fuzzed", true), await spdk.open("fuzzed", false)],
    slabs,
    deadSlab,
    canary
  }
}

/** Writes random entries for one queue, and knows what must come of them. */
class Fuzzer {
  readonly random: Random
  readonly world: World
  readonly queue: RawQueue
  readonly channels: ReadonlyArray<Pair>
  /** Names of requests that were given out, for aborts and to be used twice. */
  private names: Array<Pair> = [[0, 0]]
  private nextId = 0

  constructor(random: Random, world: World, queue: RawQueue, channels: ReadonlyArray<Pair>) {
    this.random = random
    this.world = world
    this.queue = queue
    this.channels = channels
  }

  private wild(): number {
    const { random } = this
    return random.pick([
      0,
      1,
      2,
      63,
      64,
      65,
      255,
      256,
      511,
      512,
      4095,
      65_535,
      0x7fffffff,
      0x80000000,
      0xffffffff,
      random.word()
    ])
  }

  private pair(good: ReadonlyArray<Pair>): Pair {
    if (this.random.chance(0.85)) return this.random.pick(good)
    const [slot, generation] = this.random.pick([...good, this.world.deadSlab])
    return this.random.pick([
      [this.wild(), generation],
      [slot, this.wild()],
      [this.wild(), this.wild()]
    ] as const)
  }

  /** An id of its own, one that is in use, or any number at all. */
  private name(): Pair {
    const { random } = this
    const name: Pair = random.chance(0.9)
      ? [this.nextId++ % (cqEntries * 3), this.nextId]
      : random.chance(0.5)
        ? random.pick(this.names)
        : [this.wild(), this.wild()]
    if (this.names.length < 500) this.names.push(name)
    else this.names[random.below(500)] = name
    return name
  }

  private segment(): ReadonlyArray<number> {
    const { random } = this
    const offset = random.chance(0.95) ? blockSize * random.below(96) : this.wild()
    const length = random.chance(0.95) ? blockSize * (1 + random.below(3)) : this.wild()
    return [...this.pair(this.world.slabs), offset, length]
  }

  /** The first slot, whose words may say anything; a second one only when the first asks for it. */
  entry(segments: number): ReadonlyArray<Uint32Array> {
    const { random } = this
    const words = new Uint32Array(Sqe.words)
    const opcode = random.chance(0.95) ? random.below(9) : random.below(256)
    const blocks = random.chance(0.9) ? 1 + random.below(32) : this.wild()
    const [id, generation] = this.name()
    const isWide = random.chance(0.1)
    words[Sqe.opcodeWord] = opcode | (segments << Sqe.segmentsShift) | (id << Sqe.idShift) | (isWide ? Sqe.wideBit : 0)
    words[Sqe.idGenerationWord] = generation
    const [channel, slab] = [this.pair(this.channels), this.pair(this.world.slabs)]
    words[Sqe.handlesWord] = (channel[0] & 0xffff) | (slab[0] << Sqe.slabShift)
    words[Sqe.channelGenerationWord] = channel[1]
    if (opcode === Opcode.Abort) {
      words.set(random.chance(0.9) ? random.pick(this.names) : [this.wild(), this.wild()], Sqe.targetIdWord)
    }
    words[Sqe.slabGenerationWord] = slab[1]
    words[Sqe.slabOffsetWord] = random.chance(0.9) ? blockSize * random.below(128) : this.wild()
    words[Sqe.offsetBlocksWord] = random.chance(0.9) ? random.below(numBlocks) : this.wild()
    words[Sqe.lengthBlocksWord] = blocks
    // Due soon, so that it completes: what is due in a thousand years is another test's.
    if (opcode === Opcode.Timer) words[Sqe.offsetBlocksWord] = random.below(500)
    if (!isWide) return [words]
    const upper = new Uint32Array(Sqe.words).map(() => this.wild())
    upper[Wide.offsetBlocksWord] = opcode === Opcode.Timer || random.chance(0.7) ? 0 : this.wild()
    upper[Wide.lengthBlocksWord] = random.chance(0.8) ? 0 : this.wild()
    return [words, upper]
  }

  /** Writes about `slots` slots and publishes them in one go. Returns the names of the entries in them. */
  burst(slots: number): Array<string> {
    const { queue, random } = this
    const named: Array<string> = []
    for (let left = slots; left > 0;) {
      const honest = random.chance(0.8) ? (random.chance(0.7) ? 0 : 1 + random.below(Segment.max)) : undefined
      const claimed = honest ?? random.pick([1, 5, Segment.max + 1, 100, Sqe.segmentsMask, 1 + random.below(80)])
      const [entry, upper] = this.entry(claimed)
      if (entry === undefined) break
      queue.write(entry)
      left--
      const { generation, id } = decodeEntry(entry)
      named.push(`${id}/${generation}`)
      if (upper !== undefined && left > 0) {
        queue.write(upper)
        left--
      }
      const wanted = Math.ceil(claimed / Segment.perSlot)
      // What lies takes slots that were meant for others, as far as any were published.
      for (let slot = 0; slot < wanted && left > 0; slot++, left--) {
        queue.write(Array.from({ length: Segment.perSlot }, () => this.segment()).flat())
      }
    }
    queue.publish()
    return named
  }
}

describeWithSpdk("the rings of a real reactor", () => {
  let world: World
  beforeAll(async () => void (world = await setUp()), 60_000)

  const makeFuzzer = async (random: Random): Promise<Fuzzer> => {
    const queue = await world.spdk.spawn(sqEntries, cqEntries)
    const channels: Array<Pair> = []
    for (const descriptor of world.descriptors) {
      const { a, b } = await world.spdk.get((addon, request) => addon.channelOpen(request, queue.id, descriptor))
      channels.push([a, b])
    }
    return new Fuzzer(random, world, queue, channels)
  }

  const alive = async (): Promise<void> => {
    expect(await world.spdk.rpc("bdev_get_bdevs", { name: "fuzzed" })).toHaveLength(1)
    expect(world.canary.every((byte) => byte === canaryByte)).toBe(true)
  }

  it(
    "every entry that was published completes exactly once, whatever is in it",
    async () => {
      const random = new Random()
      const where = `EFFECT_SPDK_SEED=${random.seed}`
      const seen = { succeeded: 0, refused: 0 }
      for (let round = 0; round < (long ? 400 : 12); round++) {
        const fuzzer = await makeFuzzer(random)
        const { queue } = fuzzer
        for (let burst = 0; burst < 40; burst++) {
          const expected = fuzzer.burst(1 + random.below(sqEntries)).toSorted()
          const completed: Array<string> = []
          await until(`${where}: ${expected.length} completions`, () => {
            for (const { generation, id, status } of queue.take()) {
              completed.push(`${id}/${generation}`)
              seen[status === 0 ? "succeeded" : "refused"]++
            }
            return completed.length >= expected.length
          })
          expect({ where, completed: completed.toSorted() }).toEqual({ where, completed: expected })
          expect({ where, consumed: queue.consumed }).toEqual({ where, consumed: queue.tail })
        }
        await queue.exit()
        expect({ where, left: queue.take() }).toEqual({ where, left: [] })
      }
      // The generator is worth something only while it makes both kinds.
      expect(seen.succeeded).toBeGreaterThan(seen.refused / 10)
      expect(seen.refused).toBeGreaterThan(seen.succeeded / 10)
      await alive()
    },
    long ? 1_200_000 : 60_000
  )

  it(
    "a queue whose control words are random as well still ends, and harms no other",
    async () => {
      const random = new Random()
      const bystander = await world.spdk.spawn(sqEntries, cqEntries)
      for (let round = 0; round < (long ? 1000 : 40); round++) {
        const fuzzer = await makeFuzzer(random)
        const { queue } = fuzzer
        for (let step = 0; step < 30; step++) {
          if (random.chance(0.5))
            for (let word = Control.words; word < queue.words.length; word++) queue.words[word] = random.word()
          fuzzer.burst(1 + random.below(sqEntries))
          for (const word of [Control.sqTailWord, Control.cqHeadWord, Control.sqHeadWord, Control.cqTailWord]) {
            if (random.chance(0.5))
              Atomics.store(queue.signed, word, random.chance(0.5) ? random.word() | 0 : random.below(2000))
          }
          Atomics.store(queue.signed, Control.jsSleepingWord, random.below(3))
          await new Promise((resolve) => setImmediate(resolve))
        }
        for (const slot of slotsOfEntry(Opcode.Nop, round)) bystander.write(slot)
        bystander.publish()
        await until(`EFFECT_SPDK_SEED=${random.seed}: the other queue goes on`, () => bystander.take().length === 1)
        await queue.exit()
      }
      await bystander.exit()
      await alive()
    },
    long ? 1_200_000 : 60_000
  )

  afterAll(async () => {
    for (const descriptor of world.descriptors)
      await world.spdk.get((addon, request) => addon.bdevClose(request, descriptor))
    expect(world.spdk.addon.usage()).toMatchObject({ threads: 0, channels: 0, descriptors: 0 })
  })
})
