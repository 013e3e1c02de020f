import { CompletionKind, Control, Detail, Opcode, Sqe } from "@effect-spdk/native/Layout"
import { type Completion, type Entry, makeEntry } from "@effect-spdk/native/Queue"
import { RingQueue } from "@effect-spdk/native/RingQueue"
import { describe, expect, it } from "vitest"
import { decodeEntry } from "./support/entry.ts"
import { FakeReactor, Recorder } from "./support/fakeReactor.ts"

const setUp = (sqEntries?: number, cqEntries?: number, age?: number) => {
  const reactor = new FakeReactor(sqEntries, cqEntries, age)
  const queue = new RingQueue(reactor.memory, { schedule: () => {}, kick: () => {} })
  return { reactor, queue, recorder: new Recorder() }
}

const entryOf = (fields: Partial<Entry>): Entry => ({ ...makeEntry(), opcode: Opcode.Read, ...fields })

const isAbort = (entry: Uint32Array): boolean => decodeEntry(entry).opcode === Opcode.Abort

const nameOf = (entry: Uint32Array): string => {
  const { generation, id } = decodeEntry(entry)
  return `${id}/${generation}`
}

describe("RingQueue, at its edges", () => {
  for (const age of [2 ** 31 - 40, 2 ** 32 - 40]) {
    it(`loses nothing where its counts pass ${age + 40}, full rings and ticks included`, () => {
      const { queue, reactor, recorder } = setUp(16, 512, age)
      let ticks = 0
      queue.onTick(7, (runs) => (ticks += runs))
      let submitted = 0
      for (let round = 0; round < 12; round++) {
        // More than the ring holds: the rest waits, and follows in order.
        for (let i = 0; i < 24; i++) queue.submit(entryOf({ offsetBlocks: submitted }), recorder, submitted++)
        for (let turn = 0; queue.inFlight > 0 && turn < 10; turn++) {
          const entries = reactor.take()
          expect(entries.length).toBeLessThanOrEqual(16)
          for (const entry of entries) reactor.answerEntry(entry)
          reactor.answer(7, 0, 0, 0, 0, CompletionKind.Tick, 1)
          queue.drain(1000)
        }
        expect(queue.inFlight).toBe(0)
        expect(queue.sleep()).toBe(true)
        queue.wake()
      }
      expect(recorder.seen.map(({ index }) => index)).toEqual(Array.from({ length: submitted }, (_, index) => index))
      expect(ticks).toBeGreaterThanOrEqual(24)
      expect(reactor.words[Control.cqHeadWord]).toBe(reactor.tail)
    })
  }

  it("publishes what the completion of a refused request submits", () => {
    const { queue, reactor, recorder } = setUp(16)
    const resubmits: Completion = { complete: () => void queue.submit(entryOf({ offsetBlocks: 77 }), recorder, 77) }
    queue.submit(entryOf({ segments: [] }), resubmits, 0)
    queue.drain(100)
    expect(reactor.take().map((entry) => decodeEntry(entry).offsetBlocks)).toEqual([77n])
  })

  it("sends an abort ahead of what waits, also when every place for a request is taken", () => {
    const { queue, reactor, recorder } = setUp(1024, 512)
    const ids: Array<number> = []
    for (let i = 0; i < 400; i++) ids.push(queue.submit(entryOf({}), recorder, i))
    const inRing = reactor.take()
    expect(inRing.length).toBeLessThan(400)
    for (const id of ids) queue.abort(id)
    const asked = new Set<string>()
    for (let turn = 0; turn < 20; turn++) {
      queue.drain(1000)
      for (const entry of reactor.take()) {
        expect(isAbort(entry)).toBe(true)
        asked.add(decodeEntry(entry).target.join("/"))
        reactor.answerEntry(entry)
      }
    }
    expect(asked).toEqual(new Set(inRing.map(nameOf)))
    expect(recorder.seen).toHaveLength(400 - inRing.length)
  })

  it("forgets an abort that waits when its request completes first", () => {
    const { queue, reactor, recorder } = setUp(16, 512)
    const ids = Array.from({ length: 16 }, (_, i) => queue.submit(entryOf({}), recorder, i))
    for (const id of ids) queue.abort(id)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    queue.drain(1000)
    for (let turn = 0; turn < 5; turn++) {
      for (const entry of reactor.take()) reactor.answerEntry(entry)
      queue.drain(1000)
    }
    expect(recorder.seen).toHaveLength(16)
    expect(queue.inFlight).toBe(0)
  })

  it("does not fall asleep over requests that only the reactor's hand keeps waiting", () => {
    const { queue, reactor, recorder } = setUp(16, 512)
    for (let i = 0; i < 20; i++) queue.submit(entryOf({}), recorder, i)
    expect(queue.sleep()).toBe(false)
    expect(reactor.take()).toHaveLength(16)
    queue.drain(100)
    expect(reactor.take()).toHaveLength(4)
    // Now a device owes every answer, and each of them wakes.
    expect(queue.sleep()).toBe(true)
  })

  it("sleeps while requests wait for others to complete", () => {
    const { queue, reactor, recorder } = setUp(1024, 512)
    for (let i = 0; i < 400; i++) queue.submit(entryOf({}), recorder, i)
    reactor.take()
    queue.drain(1000)
    expect(queue.sleep()).toBe(true)
  })

  it("goes on after a completion that throws, and loses none of the others", () => {
    const { queue, reactor, recorder } = setUp(16)
    const throws: Completion = {
      complete: () => {
        throw new Error("on purpose")
      }
    }
    queue.submit(entryOf({}), recorder, 0)
    queue.submit(entryOf({}), throws, 1)
    queue.submit(entryOf({}), recorder, 2)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    expect(() => queue.drain(100)).toThrow("on purpose")
    queue.drain(100)
    expect(recorder.seen.map(({ index }) => index)).toEqual([0, 2])
    expect(reactor.words[Control.cqHeadWord]).toBe(3)
    queue.submit(entryOf({}), recorder, 3)
    expect(reactor.take()).toHaveLength(1)
  })

  it("loses no refused request to a completion that throws", () => {
    const { queue, recorder } = setUp(16)
    const throws: Completion = {
      complete: () => {
        throw new Error("on purpose")
      }
    }
    queue.close()
    queue.submit(entryOf({}), throws, 0)
    queue.submit(entryOf({}), recorder, 1)
    expect(() => queue.drain(100)).toThrow("on purpose")
    queue.drain(100)
    expect(recorder.seen.map(({ index }) => index)).toEqual([1])
    expect(queue.inFlight).toBe(0)
  })

  it("the end cancels what has no answer, what was never handed over included, and each once", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let i = 0; i < 18; i++) queue.submit(entryOf({}), recorder, i)
    const [first] = reactor.take()
    if (first !== undefined) reactor.answerEntry(first)
    queue.close()
    queue.end()
    queue.submit(entryOf({}), recorder, 18)
    queue.drain(1000)
    queue.end()
    queue.drain(1000)
    expect(recorder.seen.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 19 }, (_, i) => i)
    )
    expect(recorder.seen.find(({ index }) => index === 0)?.status).toBe(0)
    expect(recorder.seen.filter(({ detail, status }) => detail === Detail.Closing && status === -125)).toHaveLength(18)
    expect(queue.inFlight).toBe(0)
    // A late answer, to whoever it was, goes nowhere.
    reactor.answer(3, 1)
    queue.drain(1000)
    expect(recorder.seen).toHaveLength(19)
  })

  it("keeps the segments that it was given, whatever becomes of the caller's array", () => {
    const { queue, reactor, recorder } = setUp(16)
    for (let i = 0; i < 16; i++) queue.submit(entryOf({}), recorder, i)
    const piece = { slab: { slot: 5, generation: 6 }, offsetBytes: 512, lengthBytes: 1024 }
    const segments = [piece]
    queue.submit(entryOf({ segments }), recorder, 16)
    piece.offsetBytes = 0
    piece.slab.slot = 0
    segments.length = 0
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    queue.drain(100)
    const [entry] = reactor.take()
    expect([...(entry?.slice(Sqe.words, Sqe.words + 4) ?? [])]).toEqual([5, 6, 512, 1024])
  })
})
