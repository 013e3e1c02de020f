import { EventKind, PollerAction } from "@effect-spdk/native/Addon"
import { Host, type HostQueue } from "@effect-spdk/native/Host"
import { CompletionKind, Control, Detail, Opcode } from "@effect-spdk/native/Layout"
import { type Completion, makeEntry } from "@effect-spdk/native/Queue"
import { describe, expect, it } from "vitest"
import { following } from "../src/internal/numbers.ts"
import { FakeAddon } from "./support/fakeAddon.ts"
import { type FakeReactor, Recorder } from "./support/fakeReactor.ts"

const nop = { ...makeEntry(), opcode: Opcode.Nop }

const setUp = () => {
  const addon = new FakeAddon()
  const host = new Host(addon)
  let ids = 0
  const spawn = (): { readonly queue: HostQueue; readonly reactor: FakeReactor } => {
    let spawned: HostQueue | undefined
    const id = ++ids
    host.spawn("q", "", (_reply, queue) => (spawned = queue))
    addon.answer("spawn", { a: id, b: 100 + id })
    const reactor = addon.reactors.get(id)
    if (spawned === undefined || reactor === undefined) throw new Error("no queue")
    return { queue: spawned, reactor }
  }
  const register = (queue: HostQueue, onTick: (runs: number) => void = () => {}): number => {
    const id = host.pollerRegister(queue, "p", 1000, onTick, () => {})
    addon.answer("pollerRegister")
    return id
  }
  return { addon, host, spawn, register, recorder: new Recorder() }
}

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** Until the thread has nothing to do and says so in the ring. */
const untilAsleep = async (reactor: FakeReactor): Promise<void> => {
  for (let i = 0; i < 500 && reactor.words[Control.jsSleepingWord] === 0; i++) await turns(1)
  expect(reactor.words[Control.jsSleepingWord]).toBe(1)
}

/** Until the host has been told that its reactor runs on its processor: a wake-up says so. */
const untilShared = async (addon: FakeAddon, queue: HostQueue, reactor: FakeReactor): Promise<void> => {
  const recorder = new Recorder()
  queue.ring.submit(nop, recorder, 0)
  await untilAsleep(reactor)
  addon.processorIsShared = true
  for (const entry of reactor.take()) reactor.answerEntry(entry)
  addon.tell()
  expect(recorder.seen).toHaveLength(1)
}

const thrower: Completion = {
  complete: () => {
    throw new Error("a completion of the test's")
  }
}

/** Runs it, and gives what was thrown meanwhile and nobody caught. */
const uncaughtDuring = async (run: () => Promise<void>): Promise<ReadonlyArray<unknown>> => {
  const uncaught: Array<unknown> = []
  const listeners = process.listeners("uncaughtException")
  process.removeAllListeners("uncaughtException")
  process.on("uncaughtException", (error) => uncaught.push(error))
  try {
    await run()
  } finally {
    process.removeAllListeners("uncaughtException")
    for (const listener of listeners) process.on("uncaughtException", listener)
  }
  return uncaught
}

describe("Host", () => {
  it("numbers go round at 2^32, past 0 and past those that still name something", () => {
    const taken = new Set([0xffffffff, 1, 2, 4])
    const isTaken = (id: number) => taken.has(id)
    expect(following(0xfffffffe, () => false)).toBe(0xffffffff)
    expect(following(0xfffffffe, isTaken)).toBe(3)
    expect(following(3, isTaken)).toBe(5)
  })

  it("tells of the progress of a call until it is answered, and of what happens to a blob while it is open", () => {
    const { addon, host } = setUp()
    const heard: Array<number | string> = []
    host.blobstoreCall(
      "load",
      0,
      {},
      () => heard.push("answer"),
      (done) => heard.push(done)
    )
    const id = addon.asked[0]?.request ?? 0
    addon.tell({ kind: EventKind.Progress, id, a: 1 }, { kind: EventKind.Progress, id: id + 1, a: 9 })
    addon.tell({ kind: EventKind.Progress, id, a: 2 })
    addon.answer("blobstoreCall")
    addon.tell({ kind: EventKind.Progress, id, a: 3 })
    expect(heard).toEqual([1, 2, "answer"])

    const events: Array<string> = []
    host.blobOpen(
      1,
      { numbers: [2 ** 32, 0] },
      ({ _tag }) => events.push(_tag),
      () => {}
    )
    addon.answer("blobstoreCall", { a: 7 })
    addon.tell({ kind: EventKind.Removed, id: 8 }, { kind: EventKind.Removed, id: 7 })
    host.bdevClose(7, () => {})
    addon.answer("bdevClose")
    addon.tell({ kind: EventKind.Removed, id: 7 })
    expect(events).toEqual(["Removed"])
    expect(addon.alive).toBe(false)
  })

  it("holds the event loop while an answer or a completion is due, and only then", async () => {
    const { addon, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    expect(addon.alive).toBe(false)
    queue.ring.submit(nop, recorder, 0)
    await untilAsleep(reactor)
    expect(addon.alive).toBe(true)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    addon.tell()
    await turns(3)
    expect(recorder.seen).toHaveLength(1)
    expect(addon.alive).toBe(false)
  })

  it("sleeps when a reactor of its processor has had it and nothing came, and looks around otherwise", async () => {
    const { addon, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    queue.ring.submit(nop, recorder, 0)
    await turns(3)
    expect(reactor.words[Control.jsSleepingWord]).toBe(0)
    await untilAsleep(reactor)
    addon.processorIsShared = true
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    addon.tell()
    expect(recorder.seen).toHaveLength(1)
    queue.ring.submit(nop, recorder, 1)
    await turns(1)
    expect(reactor.words[Control.jsSleepingWord]).toBe(1)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    addon.tell()
    expect(recorder.seen).toHaveLength(2)
  })

  it("hands a shared processor to its reactor and takes what it left, without sleeping in between", async () => {
    const { addon, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    await untilShared(addon, queue, reactor)
    let handovers = 0
    addon.onGiveWay = () => {
      handovers++
      expect(reactor.words[Control.jsSleepingWord]).toBe(0)
      for (const entry of reactor.take()) reactor.answerEntry(entry)
    }
    queue.ring.submit(nop, recorder, 1)
    await turns(1)
    expect(recorder.seen).toHaveLength(1)
    queue.ring.submit(nop, recorder, 2)
    await turns(1)
    expect(recorder.seen).toHaveLength(2)
    expect(handovers).toBe(2)
    expect(addon.alive).toBe(false)
  })

  it("gives timers and sockets their turn, however long the reactor keeps answering on the same processor", async () => {
    const { addon, spawn } = setUp()
    const { queue, reactor } = spawn()
    await untilShared(addon, queue, reactor)
    let handovers = 0
    let mostInOneTurn = 0
    let sinceTurn = 0
    let goesOn = true
    addon.onGiveWay = () => {
      handovers++
      mostInOneTurn = Math.max(mostInOneTurn, ++sinceTurn)
      for (const entry of reactor.take()) reactor.answerEntry(entry)
    }
    const again: Completion = {
      complete: () => {
        if (goesOn) queue.ring.submit(nop, again, 0)
      }
    }
    queue.ring.submit(nop, again, 0)
    for (let i = 0; i < 20; i++) {
      await turns(1)
      sinceTurn = 0
    }
    expect(handovers).toBeGreaterThanOrEqual(20)
    expect(mostInOneTurn).toBeLessThanOrEqual(8)
    expect(reactor.words[Control.jsSleepingWord]).toBe(0)
    goesOn = false
    await turns(2)
    expect(queue.ring.inFlight).toBe(0)
  })

  it("looks around again when the processor is no longer shared", async () => {
    const { addon, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    await untilShared(addon, queue, reactor)
    let handovers = 0
    addon.onGiveWay = () => {
      handovers++
      addon.processorIsShared = false
    }
    queue.ring.submit(nop, recorder, 1)
    await turns(4)
    expect(handovers).toBe(1)
    expect(reactor.words[Control.jsSleepingWord]).toBe(0)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    await turns(1)
    expect(recorder.seen).toHaveLength(1)
  })

  it("takes what is left when a completion throws out of a turn on a shared processor", async () => {
    const { addon, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    await untilShared(addon, queue, reactor)
    addon.onGiveWay = () => {
      for (const entry of reactor.take()) reactor.answerEntry(entry)
    }
    const uncaught = await uncaughtDuring(async () => {
      queue.ring.submit(nop, thrower, 0)
      queue.ring.submit(nop, recorder, 1)
      await turns(5)
    })
    expect(uncaught).toMatchObject([{ message: "a completion of the test's" }])
    expect(recorder.seen).toHaveLength(1)
  })

  it("takes the completion that came with a line of the log, though the listener to the log throws", async () => {
    const { addon, host, recorder, spawn } = setUp()
    host.listenToLog(() => {
      throw new Error("a listener of the test's")
    })
    const { queue, reactor } = spawn()
    queue.ring.submit(nop, recorder, 0)
    await untilAsleep(reactor)
    for (const entry of reactor.take()) reactor.answerEntry(entry)
    // As a reactor does that wakes for the completion: nobody is woken for it again.
    reactor.words[Control.jsSleepingWord] = 0
    expect(() => addon.tell({ kind: EventKind.Log, text: "file\0name\0message" })).toThrow("a listener of the test's")
    await turns(3)
    expect(recorder.seen).toHaveLength(1)
    expect(addon.alive).toBe(false)
  })

  it("holds the event loop while a poller runs, as a timer of Node's does, and not while it is paused or gone", async () => {
    const { addon, host, register, spawn } = setUp()
    const { queue } = spawn()
    const poller = register(queue)
    await turns(3)
    expect(addon.alive).toBe(true)
    for (const [action, alive] of [
      [PollerAction.Pause, false],
      [PollerAction.Stats, false],
      [PollerAction.Resume, true],
      [PollerAction.Unregister, false],
      [PollerAction.Resume, false]
    ] as const) {
      host.pollerControl(queue, poller, action, () => {})
      addon.answer("pollerControl")
      await turns(3)
      expect({ action, alive: addon.alive }).toEqual({ action, alive })
    }
    register(queue)
    host.exit(queue, () => {})
    addon.answer("exit")
    await turns(3)
    expect(addon.alive).toBe(false)
  })

  it("completes what is submitted to a thread that has ended", async () => {
    const { addon, host, recorder, spawn } = setUp()
    const { queue } = spawn()
    host.exit(queue, () => {})
    addon.answer("exit")
    await turns(3)
    queue.ring.submit(nop, recorder, 7)
    expect(host.requestsInFlight).toBe(1)
    await turns(3)
    expect(recorder.seen).toEqual([{ index: 7, status: -125, detail: Detail.Closing, nvme: 0 }])
    expect(host.requestsInFlight).toBe(0)
  })

  it("the end of a thread completes what it never answered, before it is told", async () => {
    const { addon, host, recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    for (let i = 0; i < 3; i++) queue.ring.submit(nop, recorder, i)
    const [first] = reactor.take()
    if (first !== undefined) reactor.answerEntry(first)
    let seenAtEnd: number | undefined
    host.exit(queue, () => (seenAtEnd = recorder.seen.length))
    addon.answer("exit")
    expect(seenAtEnd).toBe(3)
    expect(recorder.seen.map(({ index, status }) => [index, status])).toEqual([
      [0, 0],
      [1, -125],
      [2, -125]
    ])
  })

  it("a completion that submits again and again does not hold up the end, nor the event loop", async () => {
    const { addon, host, spawn } = setUp()
    const { queue } = spawn()
    let completed = 0
    const again: Completion = {
      complete: () => {
        if (++completed < 100_000) queue.ring.submit(nop, again, 0)
      }
    }
    queue.ring.submit(nop, again, 0)
    let ended = false
    host.exit(queue, () => (ended = true))
    addon.answer("exit")
    expect(ended).toBe(true)
    let timer = false
    setTimeout(() => (timer = true), 0)
    while (!timer) await turns(1)
    expect(completed).toBeLessThan(100_000)
  })

  it("wakes up every queue that it had put to sleep when one of them has something", async () => {
    const { recorder, register, spawn } = setUp()
    const [one, two] = [spawn(), spawn()]
    register(one.queue)
    await untilAsleep(one.reactor)
    two.queue.ring.submit(nop, recorder, 0)
    expect(one.reactor.words[Control.jsSleepingWord]).toBe(0)
  })

  it("goes on draining after a completion that threw", async () => {
    const { recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    const uncaught = await uncaughtDuring(async () => {
      queue.ring.submit(nop, thrower, 0)
      queue.ring.submit(nop, recorder, 1)
      for (const entry of reactor.take()) reactor.answerEntry(entry)
      await turns(5)
    })
    expect(uncaught).toHaveLength(1)
    expect(recorder.seen.map(({ index }) => index)).toEqual([1])
  })

  it("a burst of completions leaves timers and sockets their turns", async () => {
    const { recorder, spawn } = setUp()
    const { queue, reactor } = spawn()
    for (let i = 0; i < 3000; i++) queue.ring.submit(nop, recorder, i)
    for (let left = 3000; left > 0;) {
      const entries = reactor.take()
      for (const entry of entries) reactor.answerEntry(entry)
      left -= entries.length
      queue.ring.drain(0)
    }
    let seenAtFirstTurn = -1
    setImmediate(() => (seenAtFirstTurn = recorder.seen.length))
    await turns(10)
    expect(recorder.seen).toHaveLength(3000)
    expect(seenAtFirstTurn).toBeLessThan(3000)
  })

  it("hands a tick to its poller, and the start's number to its release", async () => {
    const { addon, host, register, spawn } = setUp()
    const { queue, reactor } = spawn()
    const runs: Array<number> = []
    const poller = register(queue, (count) => runs.push(count))
    reactor.answer(poller, 0, 0, 0, 0, CompletionKind.Tick, 5)
    addon.tell()
    await turns(2)
    expect(runs).toEqual([5])
    const start = host.start(
      {
        name: "t",
        cores: "[0]",
        rpcSocket: "",
        rpcDirectory: "",
        rpcLink: "",
        logLevel: "error",
        pciAllowed: [],
        pciBlocked: [],
        memoryMiB: 1,
        hugepages: false,
        pci: false,
        adaptive: true,
        waitForRpc: false,
        key: ""
      },
      () => {}
    )
    expect(addon.asked).toEqual([{ name: "start", request: start }])
    host.release(start)
    expect(addon.released).toEqual([start])
  })
})
