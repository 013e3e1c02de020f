/** What a real reactor makes of requests that are hard to keep track of. Devices here keep what they are given. */
import { PollerAction } from "@effect-spdk/native/Addon"
import { CompletionKind, Detail, Opcode } from "@effect-spdk/native/Layout"
import { afterAll, afterEach, beforeAll, expect, it } from "vitest"
import { type EntryFields, slotsOfEntry, slotsOfSegments } from "./support/entry.ts"
import { type RawCompletion, describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

/** Of the language, but not of the libraries that TypeScript is told of here. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer }
}

const blockSize = 512
const hourMicros = 3_600_000_000
const ecanceled = -125
/** Of bdev_io. A queue takes more requests than that. */
const poolSize = 1024

describeWithSpdk("a queue of a real reactor", () => {
  let spdk: RawSpdk
  let slab: readonly [slot: number, generation: number]
  const queues: Array<RawQueue> = []

  beforeAll(async () => {
    spdk = new RawSpdk()
    const started = spdk.start({ waitForRpc: true })
    await until("the socket answers", () =>
      spdk.rpc("spdk_get_version").then(
        () => true,
        () => false
      )
    )
    await spdk.rpc("bdev_set_options", { bdev_io_pool_size: poolSize, bdev_io_cache_size: 8 })
    await spdk.rpc("framework_start_init")
    expect(await started).toMatchObject({ status: 0 })
    await createDelay("slow", hourMicros)
    await spdk.rpc("bdev_malloc_create", { name: "held", num_blocks: 1024, block_size: blockSize })
    await spdk.rpc("bdev_error_create", { base_name: "held" })
    const allocated = spdk.addon.dmaAllocateNow(64 * 1024, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
  }, 60_000)

  const spawn = async (sqEntries = 1024, cqEntries = 4096): Promise<RawQueue> => {
    const queue = await spdk.spawn(sqEntries, cqEntries)
    queues.push(queue)
    return queue
  }

  const createDelay = async (name: string, micros: number): Promise<void> => {
    await spdk.rpc("bdev_malloc_create", { name: `${name}_base`, num_blocks: 1024, block_size: blockSize })
    await spdk.rpc("bdev_delay_create", {
      base_bdev_name: `${name}_base`,
      name,
      avg_read_latency: micros,
      p99_read_latency: micros,
      avg_write_latency: micros,
      p99_write_latency: micros
    })
  }

  const open = async (queue: RawQueue, name: string) => {
    const descriptor = await spdk.open(name, true)
    const { a: slot, b: generation } = await spdk.get((addon, request) =>
      addon.channelOpen(request, queue.id, descriptor)
    )
    const close = () => spdk.get((addon, request) => addon.bdevClose(request, descriptor))
    return { channel: [slot, generation] as const, close }
  }

  const submit = (queue: RawQueue, opcode: number, id: number, fields: EntryFields = {}) => {
    for (const slot of slotsOfEntry(opcode, id, fields)) queue.write(slot)
  }

  const read = (queue: RawQueue, id: number, channel: ArrayLike<number>) =>
    submit(queue, Opcode.Read, id, { channel, slab, lengthBlocks: 1 })

  const collect = async (queue: RawQueue, count: number): Promise<ReadonlyArray<RawCompletion>> => {
    const seen: Array<RawCompletion> = []
    await until(`${count} completions`, () => {
      seen.push(...queue.take())
      return seen.length >= count
    })
    return seen
  }

  /** The device keeps what it is given from here on, until it lets go of all. */
  const hold = () =>
    spdk.rpc("bdev_error_inject_error", { name: "EE_held", io_type: "read", error_type: "pending", num: 100_000 })
  const letGo = () => spdk.rpc("bdev_error_resume_pending", { name: "EE_held" })

  afterEach(async () => {
    for (const queue of queues.splice(0)) await queue.exit()
  })

  it("takes more vectored requests than a device answers, and what comes behind them", async () => {
    const queue = await spawn()
    const { channel, close } = await open(queue, "slow")
    for (let id = 0; id < 300; id++) {
      submit(queue, Opcode.Read, id, { channel, segments: 2, lengthBlocks: 2 })
      const pieces = [
        [...slab, 0, blockSize],
        [...slab, 1024, blockSize]
      ]
      for (const slot of slotsOfSegments(pieces)) queue.write(slot)
    }
    submit(queue, Opcode.Nop, 1000)
    queue.publish()
    expect(await collect(queue, 1)).toMatchObject([{ id: 1000, status: 0 }])
    await queue.exit()
    // The exit aborted all of them.
    const ended = await collect(queue, 300)
    expect(ended.every(({ status }) => status === ecanceled)).toBe(true)
    expect(new Set(ended.map(({ id }) => id)).size).toBe(300)
    await close()
  })

  it("aborts what the device has", async () => {
    const queue = await spawn()
    const { channel, close } = await open(queue, "slow")
    const count = 200
    for (let id = 0; id < count; id++) read(queue, id, channel)
    for (let id = 0; id < count; id++) submit(queue, Opcode.Abort, 1000 + id, { target: id })
    queue.publish()
    const seen = await collect(queue, 2 * count)
    expect(seen).toMatchObject(seen.map(({ id }) => ({ status: id < 1000 ? ecanceled : 0 })))
    expect(new Set(seen.map(({ id }) => id)).size).toBe(2 * count)
    await queue.exit()
    await close()
  })

  it("what is aborted while it waits for a bdev_io never goes to the device", async () => {
    const queue = await spawn(4096)
    const { channel, close } = await open(queue, "EE_held")
    await hold()
    const count = 1800
    for (let id = 0; id < count; id++) read(queue, id, channel)
    for (let id = 0; id < count; id++) submit(queue, Opcode.Abort, 2000 + id, { target: id })
    queue.publish()
    await until("the reactor has them", () => queue.consumed === 2 * count)
    await letGo()
    const seen = await collect(queue, 2 * count)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(2 * count)
    // The device has finished what it had: it takes a bdev_io to abort that.
    const aborted = seen.filter(({ id, status }) => id < 2000 && status === ecanceled)
    expect(aborted.length).toBeGreaterThanOrEqual(count - poolSize)
    await queue.exit()
    await close()
  })

  it("a queue that ends with requests waiting for a bdev_io waits for the device, and not for them", async () => {
    const queue = await spawn(4096)
    const { channel, close } = await open(queue, "EE_held")
    await hold()
    const count = 3000
    for (let id = 0; id < count; id++) read(queue, id, channel)
    queue.publish()
    await until("the reactor has them", () => queue.consumed === count)
    let hasEnded = false
    const ending = queue.exit().then(() => (hasEnded = true))
    // Answered when the queue knows that it ends.
    await spdk.ask((addon, request) => addon.pollerControl(request, queue.id, 1, PollerAction.Stats))
    await spdk.rpc("spdk_get_version")
    expect(hasEnded).toBe(false)
    await letGo()
    await ending
    const seen = await collect(queue, count)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(count)
    expect(seen.filter(({ status }) => status === ecanceled).length).toBeGreaterThanOrEqual(count - poolSize)
    await close()
  })

  it("a timer that is due after all of SPDK's ticks is not due at once", async () => {
    const queue = await spawn()
    const { tick_rate: ticksPerSecond } = (await spdk.rpc("framework_get_reactors")) as { readonly tick_rate: number }
    // The product of ticks and seconds wraps to less than a second.
    const wraps = ((1n << 64n) / BigInt(ticksPerSecond) + 1n) * 1_000_000n
    const forever = [wraps, (1n << 64n) - 1n, (1n << 63n) + 1n, 9_007_199_254_740_991n]
    forever.forEach((value, id) => submit(queue, Opcode.Timer, id, { offsetBlocks: value }))
    submit(queue, Opcode.Timer, 99, { offsetBlocks: 1_200_000 })
    queue.publish()
    expect(await collect(queue, 1)).toMatchObject([{ id: 99, status: 0 }])
    forever.forEach((_, id) => submit(queue, Opcode.Abort, 50 + id, { target: id }))
    queue.publish()
    const ended = await collect(queue, 2 * forever.length)
    expect(ended.filter(({ id }) => id < 50)).toMatchObject(forever.map(() => ({ status: ecanceled })))
    expect(ended.filter(({ id }) => id >= 50)).toMatchObject(forever.map(() => ({ status: 0 })))
  })

  it("a tick that found no room comes as soon as there is some", async () => {
    const queue = await spawn(16, 4)
    for (let id = 0; id < 4; id++) submit(queue, Opcode.Nop, id)
    queue.publish()
    await until("the ring is full", () => queue.consumed === 4)
    await spdk.get((addon, request) => addon.pollerRegister(request, queue.id, 7, "late", 1000))
    const control = (action: PollerAction) =>
      spdk.get((addon, request) => addon.pollerControl(request, queue.id, 7, action))
    await until("the poller ran", async () => (await control(PollerAction.Stats)).a > 0)
    await control(PollerAction.Pause)
    const { a: runs } = await control(PollerAction.Stats)
    expect(queue.take()).toHaveLength(4)
    // It does not take another run of the poller to deliver it: there is none.
    expect(await collect(queue, 1)).toMatchObject([{ id: 7, kind: CompletionKind.Tick }])
    expect((await control(PollerAction.Stats)).a).toBe(runs)
  })

  it("everybody who asks for the end of a queue is told of it, whenever he asks", async () => {
    for (let round = 0; round < 100; round++) {
      const queue = await spdk.spawn(64, 64)
      const answers = await Promise.all(Array.from({ length: 5 }, () => queue.exit()))
      expect(answers.map(({ status }) => status)).toEqual([0, 0, 0, 0, 0])
    }
  })

  it("refuses rings that are no power of two, or larger than ids reach", async () => {
    for (const [sq, cq] of [
      [0, 16],
      [16, 0],
      [24, 16],
      [16, 131_072],
      [0x80000000, 16]
    ] as const) {
      expect(await spdk.ask((addon, request) => addon.spawn(request, "bad", "", sq, cq))).toMatchObject({ status: -22 })
    }
  })

  it("refuses a length in blocks whose bytes do not fit a number", async () => {
    const queue = await spawn()
    const blocks = 2n ** 60n
    await spdk.rpc("bdev_null_create", { name: "endless", num_blocks: Number(blocks), block_size: 4096 })
    const descriptor = await spdk.open("endless", true)
    const { a, b } = await spdk.get((addon, request) => addon.channelOpen(request, queue.id, descriptor))
    // 2^52 blocks of 4096 bytes are 2^64 bytes: nothing, where 64 bits end.
    submit(queue, Opcode.Read, 1, { channel: [a, b], slab, lengthBlocks: 1n << 52n })
    queue.publish()
    expect(await collect(queue, 1)).toMatchObject([{ status: -22, detail: Detail.LengthMismatch }])
    await queue.exit()
    await spdk.get((addon, request) => addon.bdevClose(request, descriptor))
  })

  it("keeps memory whose view JavaScript does not let go of", () => {
    const allocated = spdk.addon.dmaAllocateNow(4096, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    const { slabs } = spdk.addon.usage()
    const undetachable = new WebAssembly.Memory({ initial: 1 }).buffer
    expect(() => spdk.addon.dmaFree(...allocated, undetachable)).toThrow()
    expect(spdk.addon.usage()).toMatchObject({ slabs })
    const view = spdk.addon.dmaView(...allocated)
    if (view === undefined) throw new Error("the memory is gone")
    spdk.addon.dmaFree(...allocated, view)
    expect(view.byteLength).toBe(0)
    expect(spdk.addon.usage()).toMatchObject({ slabs: slabs - 1 })
  })

  afterAll(() => {
    expect(spdk.addon.usage()).toMatchObject({ threads: 0, channels: 0, descriptors: 0, pollers: 0 })
  })
})
