import { CompletionKind, Control, Detail, Opcode, Segment } from "@effect-spdk/native/Layout"
import { type Completion, type Entry, makeEntry } from "@effect-spdk/native/Queue"
import { RingQueue } from "@effect-spdk/native/RingQueue"
import { describe, expect, it } from "vitest"
import { decodeEntry } from "./support/entry.ts"
import { FakeReactor, Recorder } from "./support/fakeReactor.ts"

const setUp = (sqEntries?: number, cqEntries?: number) => {
  const reactor = new FakeReactor(sqEntries, cqEntries)
  const calls = { schedule: 0, kick: 0 }
  const queue = new RingQueue(reactor.memory, { schedule: () => calls.schedule++, kick: () => calls.kick++ })
  return { reactor, queue, calls, recorder: new Recorder() }
}

const entryOf = (fields: Partial<Entry>): Entry => ({ ...makeEntry(), opcode: Opcode.Read, ...fields })

describe("RingQueue", () => {
  it("writes what it was given, with offsets above 2^32, and copies it", () => {
    const { queue, reactor, recorder } = setUp()
    const entry = entryOf({
      channelSlot: 3,
      channelGeneration: 4,
      slabSlot: 5,
      slabGeneration: 6,
      slabOffset: 4096,
      offsetBlocks: 2 ** 40 + 7,
      lengthBlocks: 2 ** 33 + 16
    })
    queue.submit(entry, recorder, 0)
    entry.offsetBlocks = 0
    const [words] = reactor.take()
    const [id, generation] = [(words?.[0] ?? 0) >>> 16, words?.[1]]
    expect([...(words ?? [])]).toEqual([
      ...[Opcode.Read + 0x8000 + id * 65_536, generation, 3 + 5 * 65_536, 4, 6, 4096, 7, 16],
      ...[256, 2, 0, 0, 0, 0, 0, 0]
    ])
  })

  it("writes half a cache line for what is not that large, and leaves nothing of what was there", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let round = 0; round < 16; round++) {
      queue.submit(entryOf({ offsetBlocks: 2 ** 53 - 1, lengthBlocks: 2 ** 53 - 1 }), recorder, 0)
      for (const entry of reactor.take()) {
        expect(decodeEntry(entry)).toMatchObject({ offsetBlocks: 2n ** 53n - 1n, lengthBlocks: 2n ** 53n - 1n })
        reactor.answerEntry(entry)
      }
      queue.drain(10)
    }
    for (let round = 0; round < 40; round++) {
      const blocks = round % 2 === 0 ? 2 ** 32 - 1 : 0
      queue.submit(
        entryOf({ channelSlot: 65_535, slabSlot: 65_535, offsetBlocks: blocks, lengthBlocks: blocks }),
        recorder,
        0
      )
      const [entry] = reactor.take()
      expect(entry).toHaveLength(8)
      expect(decodeEntry(entry ?? [])).toMatchObject({
        channel: [65_535, 0],
        slab: [65_535, 0],
        offsetBlocks: BigInt(blocks),
        lengthBlocks: BigInt(blocks),
        slots: 1
      })
      if (entry !== undefined) reactor.answerEntry(entry)
      queue.drain(10)
    }
  })

  it("a slot that has no place in an entry names nobody", () => {
    const { queue, reactor, recorder } = setUp()
    for (const slot of [65_535, 65_536, 2 ** 31, 2 ** 32 - 1]) {
      queue.submit(entryOf({ channelSlot: slot, slabSlot: 7 }), recorder, 0)
      queue.submit(entryOf({ channelSlot: 7, slabSlot: slot }), recorder, 1)
      const [first, second] = reactor.take().map((entry) => decodeEntry(entry))
      expect([first?.channel[0], first?.slab[0]]).toEqual([65_535, 7])
      expect([second?.channel[0], second?.slab[0]]).toEqual([7, 65_535])
    }
  })

  it("a wide entry needs two slots, and waits when there is one", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let index = 0; index < 15; index++) queue.submit(entryOf({}), recorder, index)
    queue.submit(entryOf({ offsetBlocks: 2 ** 32 }), recorder, 15)
    expect(reactor.take()).toHaveLength(15)
    queue.drain(10)
    const [wide] = reactor.take()
    expect(decodeEntry(wide ?? [])).toMatchObject({ slots: 2, offsetBlocks: 2n ** 32n })
  })

  it("lays the segments of a wide entry behind its upper half", () => {
    const { queue, reactor, recorder } = setUp(64)
    const segments = Array.from({ length: Segment.max }, (_, at) => ({
      slab: { slot: at, generation: at + 1 },
      offsetBytes: at * 512,
      lengthBytes: 512
    }))
    queue.submit(entryOf({ opcode: Opcode.Write, offsetBlocks: 2 ** 40, segments }), recorder, 0)
    const [entry] = reactor.take()
    expect(decodeEntry(entry ?? [])).toMatchObject({ segments: Segment.max, segmentsAt: 2, slots: 2 + Segment.max / 2 })
    const laid = segments.map((_, at) => [...(entry?.slice(16 + at * 4, 20 + at * 4) ?? [])])
    expect(laid).toEqual(segments.map((s) => [s.slab.slot, s.slab.generation, s.offsetBytes, s.lengthBytes]))
  })

  it("hands the answer to whoever waits, once, and ignores answers that nobody waits for", () => {
    const { queue, reactor, recorder } = setUp()
    queue.submit(entryOf({}), recorder, 42)
    const [entry] = reactor.take()
    const { generation, id } = decodeEntry(entry ?? [])
    reactor.answer(id, generation + 1, -5)
    reactor.answer(999_999, 1)
    reactor.answer(id, generation, -5, Detail.None, 0x10281)
    reactor.answer(id, generation, 0)
    queue.drain(100)
    expect(recorder.seen).toEqual([{ index: 42, status: -5, detail: 0, nvme: 0x10281 }])
    expect(queue.inFlight).toBe(0)
  })

  it("does not reuse the name of a request", () => {
    const { queue, reactor, recorder } = setUp()
    const names = new Set<string>()
    for (let i = 0; i < 50; i++) {
      queue.submit(entryOf({}), recorder, i)
      const [entry] = reactor.take()
      if (entry === undefined) continue
      const { generation, id } = decodeEntry(entry)
      names.add(`${id}/${generation}`)
      reactor.answerEntry(entry)
      queue.drain(10)
    }
    expect(names.size).toBe(50)
    expect(recorder.seen).toHaveLength(50)
  })

  it("keeps what does not fit, in order, and sends it when there is room", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let i = 0; i < 100; i++) queue.submit(entryOf({ offsetBlocks: i }), recorder, i)
    expect(queue.inFlight).toBe(100)
    const order: Array<number> = []
    for (let turn = 0; turn < 20; turn++) {
      for (const entry of reactor.take()) {
        order.push(Number(decodeEntry(entry).offsetBlocks))
        reactor.answerEntry(entry)
      }
      queue.drain(1000)
    }
    expect(order).toEqual(Array.from({ length: 100 }, (_, i) => i))
    expect(recorder.seen.map(({ index }) => index)).toEqual(order)
    expect(queue.inFlight).toBe(0)
  })

  it("takes back what has not reached the ring, and asks the reactor for the rest", () => {
    const { queue, reactor, recorder } = setUp(16)
    const ids = Array.from({ length: 20 }, (_, i) => queue.submit(entryOf({ offsetBlocks: i }), recorder, i))
    const [first, last] = [ids[0] ?? 0, ids[19] ?? 0]
    queue.abort(last)
    queue.drain(1000)
    expect(recorder.seen).toEqual([{ index: 19, status: -125, detail: 0, nvme: 0 }])
    const taken = reactor.take()
    for (const entry of taken.slice(1)) reactor.answerEntry(entry)
    queue.drain(1000)
    queue.abort(first)
    queue.drain(1000)
    const abort = reactor.take().find((entry) => decodeEntry(entry).opcode === Opcode.Abort)
    const named = decodeEntry(taken[0] ?? [])
    expect(decodeEntry(abort ?? []).target).toEqual([named.id, named.generation])
    if (abort !== undefined) reactor.answerEntry(abort)
    if (taken[0] !== undefined) reactor.answerEntry(taken[0], -125)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    queue.drain(1000)
    // An abort that comes too late goes nowhere.
    queue.abort(first)
    queue.abort(last)
    expect(reactor.take()).toEqual([])
    expect(recorder.seen.filter(({ index }) => index === 0)).toEqual([{ index: 0, status: -125, detail: 0, nvme: 0 }])
  })

  it("lays segments into the slots after their entry, also across the end of the ring", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let round = 0; round < 10; round++) {
      const segments = Array.from({ length: 6 }, (_, i) => ({
        slab: { slot: round, generation: i + 1 },
        offsetBytes: i * 512,
        lengthBytes: 512
      }))
      queue.submit(entryOf({ opcode: Opcode.Write, segments }), recorder, round)
      const [entry] = reactor.take()
      expect(decodeEntry(entry ?? []).segments).toBe(6)
      const laid = Array.from({ length: 6 }, (_, i) => [...(entry?.slice(8 + i * 4, 12 + i * 4) ?? [])])
      expect(laid).toEqual(segments.map((s) => [s.slab.slot, s.slab.generation, s.offsetBytes, s.lengthBytes]))
      if (entry !== undefined) reactor.answerEntry(entry)
      queue.drain(10)
    }
    expect(recorder.seen).toHaveLength(10)
  })

  it("refuses too many or no segments without touching the ring, and never before submit returns", () => {
    const { calls, queue, reactor, recorder } = setUp(64)
    const piece = { slab: { slot: 0, generation: 1 }, offsetBytes: 0, lengthBytes: 512 }
    queue.submit(entryOf({ segments: Array.from({ length: Segment.max + 1 }, () => piece) }), recorder, 1)
    queue.submit(entryOf({ segments: [] }), recorder, 2)
    expect(recorder.seen).toEqual([])
    expect(calls.schedule).toBeGreaterThan(0)
    queue.drain(10)
    expect(recorder.seen.map(({ detail, status }) => [status, detail])).toEqual([
      [-22, Detail.TooManySegments],
      [-22, Detail.TooManySegments]
    ])
    expect(reactor.take()).toEqual([])
    expect(queue.inFlight).toBe(0)
  })

  it("kicks a sleeping reactor once, and nobody who is awake", () => {
    const { calls, queue, reactor, recorder } = setUp()
    queue.submit(entryOf({}), recorder, 0)
    expect(calls.kick).toBe(0)
    reactor.words[Control.reactorSleepingWord] = 1
    queue.submit(entryOf({}), recorder, 1)
    queue.submit(entryOf({}), recorder, 2)
    expect(calls.kick).toBe(1)
    expect(reactor.words[Control.reactorSleepingWord]).toBe(0)
  })

  it("does not fall asleep over a completion", () => {
    const { queue, reactor, recorder } = setUp()
    queue.submit(entryOf({}), recorder, 0)
    expect(queue.sleep()).toBe(true)
    expect(reactor.words[Control.jsSleepingWord]).toBe(1)
    const [entry] = reactor.take()
    if (entry !== undefined) reactor.answerEntry(entry)
    expect(queue.sleep()).toBe(false)
    expect(reactor.words[Control.jsSleepingWord]).toBe(0)
  })

  it("publishes a corked group in few steps and all of it at the end", () => {
    const { queue, reactor, recorder } = setUp(64)
    queue.cork()
    for (let i = 0; i < 5; i++) queue.submit(entryOf({}), recorder, i)
    expect(reactor.take()).toHaveLength(0)
    queue.uncork()
    expect(reactor.take()).toHaveLength(5)
  })

  it("after the close everything is refused, what waited as well", () => {
    const { queue, recorder } = setUp(16)
    for (let i = 0; i < 18; i++) queue.submit(entryOf({}), recorder, i)
    queue.close()
    queue.submit(entryOf({}), recorder, 18)
    queue.drain(100)
    expect(recorder.seen.map(({ detail, index, status }) => [index, status, detail])).toEqual([
      [16, -125, Detail.Closing],
      [17, -125, Detail.Closing],
      [18, -125, Detail.Closing]
    ])
    expect(queue.inFlight).toBe(16)
  })

  it("delivers ticks with the runs they stand for, and none after their poller", () => {
    const { queue, reactor } = setUp()
    const runs: Array<number> = []
    queue.onTick(9, (count) => runs.push(count))
    reactor.answer(9, 0, 0, 0, 0, CompletionKind.Tick, 12)
    queue.drain(10)
    queue.offTick(9)
    reactor.answer(9, 0, 0, 0, 0, CompletionKind.Tick, 3)
    queue.drain(10)
    expect(runs).toEqual([12])
  })

  it("a random run against a reactor that answers in any order: everything completes exactly once", () => {
    const seed = Number(process.env["SEED"] ?? Date.now() % 100_000)
    let state = seed
    const random = (n: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return Math.floor((state / 2 ** 32) * n)
    }
    const { queue, reactor } = setUp(32, 512)
    const completed = new Map<number, number>()
    const completion: Completion = { complete: (index) => completed.set(index, (completed.get(index) ?? 0) + 1) }
    const ids: Array<number> = []
    let held: Array<Uint32Array> = []
    let submitted = 0
    for (let step = 0; step < 3000; step++) {
      for (let n = random(8); n > 0; n--) {
        const segments =
          random(5) === 0
            ? Array.from({ length: 1 + random(9) }, () => ({
                slab: { slot: 1, generation: 1 },
                offsetBytes: 0,
                lengthBytes: 512
              }))
            : undefined
        ids.push(queue.submit(entryOf({ segments }), completion, submitted++))
      }
      if (random(4) === 0) queue.abort(ids[random(ids.length)] ?? 0)
      held.push(...reactor.take())
      held = held.filter((entry) => {
        if (random(3) === 0) return true
        reactor.answerEntry(entry)
        return false
      })
      queue.drain(1 + random(64))
    }
    for (let turn = 0; turn < 10_000 && queue.inFlight > 0; turn++) {
      held.push(...reactor.take())
      for (const entry of held.splice(0, 400)) reactor.answerEntry(entry)
      queue.drain(1000)
    }
    expect({ seed, inFlight: queue.inFlight }).toEqual({ seed, inFlight: 0 })
    expect({ seed, size: completed.size }).toEqual({ seed, size: submitted })
    expect({ seed, most: Math.max(...completed.values()) }).toEqual({ seed, most: 1 })
  })

  it("asks to be drained when something found no place, because nothing in the ring tells of room", () => {
    const { calls, queue, recorder } = setUp(16)
    for (let n = 0; n < 16; n++) queue.submit(entryOf({}), recorder, n)
    const before = calls.schedule
    queue.submit(entryOf({}), recorder, 16)
    expect(calls.schedule).toBe(before + 1)
  })
})
