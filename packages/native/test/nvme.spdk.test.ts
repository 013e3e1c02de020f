/** The NVMe driver against an export of this very process, served by the one reactor that the queues are on too. */
import { EventKind } from "@effect-spdk/native/Addon"
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { createServer } from "node:net"
import { afterAll, afterEach, beforeAll, expect, it } from "vitest"
import { slotsOfSegments } from "./support/entry.ts"
import * as raw from "./support/rawNvme.ts"
import { describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const { blockSize, collect, command, optionsFor, statusOf, submit, transfer } = raw

const ebadf = -9
const eio = -5
const einval = -22
const enodev = -19
const enoent = -2
const etimedout = -110
const ecanceled = -125
const hourMicros = 3_600_000_000
/** SCT 0, SC 8: the queue pair is gone. */
const abortedBySqDeletion = 0x10008

const controllers = process.env["EFFECT_SPDK_LONG"] === "1" ? 1000 : 100

describeWithSpdk("an NVMe controller of this process's own export", () => {
  let spdk: RawSpdk
  let nvme: raw.RawNvme
  let slab: raw.Slab
  const port = raw.randomPort()
  const queues: Array<RawQueue> = []
  const connected = new Set<number>()
  const rpc = (method: string, params?: object) => spdk.rpc(method, params)

  let bytes: Uint8Array

  beforeAll(async () => {
    spdk = new RawSpdk()
    nvme = new raw.RawNvme(spdk)
    expect(await spdk.start()).toMatchObject({ status: 0 })
    const allocated = spdk.addon.dmaAllocateNow(2 ** 20, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
    bytes = new Uint8Array(spdk.addon.dmaView(...slab) ?? new ArrayBuffer(0))
    await rpc("bdev_malloc_create", { name: "fast", num_blocks: 65_536, block_size: blockSize })
    await rpc("bdev_malloc_create", { name: "under", num_blocks: 1024, block_size: blockSize })
    await rpc("bdev_null_create", { name: "null", num_blocks: 2048, block_size: blockSize })
    await rpc("bdev_delay_create", {
      base_bdev_name: "under",
      name: "slow",
      avg_read_latency: hourMicros,
      p99_read_latency: hourMicros,
      avg_write_latency: hourMicros,
      p99_write_latency: hourMicros
    })
    await raw.exportOf(rpc, port, ["fast", "slow", "null"])
  }, 60_000)

  afterAll(() => spdk.addon.dmaFree(...slab, bytes.buffer))

  const spawn = async (): Promise<RawQueue> => {
    const queue = await spdk.spawn(1024, 4096)
    queues.push(queue)
    return queue
  }

  const connect = async (changes = {}): Promise<number> => {
    const controller = await nvme.connect(optionsFor(port, changes))
    connected.add(controller)
    return controller
  }

  const once = async (queue: RawQueue) => {
    queue.publish()
    return (await collect(queue, 1))[0]
  }

  afterEach(async () => {
    for (const queue of queues.splice(0)) await queue.exit()
    for (const controller of connected) await nvme.call(controller, "disconnect")
    connected.clear()
  })

  it("answers commands of the admin queue, and says what it is", async () => {
    const { answer, id } = nvme.begin(optionsFor(port))
    const { text } = await answer
    connected.add(id)
    expect(JSON.parse(text)).toEqual({
      cap: expect.stringMatching(/^\d+$/),
      vs: expect.any(Number),
      ioQueues: 8,
      maxTransferBytes: 131_072
    })
    expect((await nvme.call(id, "namespaces")).text).toBe("[1,2,3]")
    // Identify controller: the model number at byte 24.
    const { bytes: completion, status } = await nvme.admin(id, command(0x06, { 10: 1 }), [...slab, 4096, 4096])
    expect([status, statusOf(completion)]).toEqual([0, [0, 0]])
    expect(Buffer.from(bytes.subarray(4096 + 24, 4096 + 64)).toString()).toMatch(/^SPDK bdev Controller/)
    // A status is an answer: there is no log page of that number.
    const refused = await nvme.admin(id, command(0x02, { 1: 0xffffffff, 10: 0x03ff00ee }), [...slab, 0, 4096])
    expect([refused.status, statusOf(refused.bytes)]).toEqual([0, [1, 0x09]])
  })

  it("refuses what is no command, no memory, no controller", async () => {
    const id = await connect()
    const identify = command(0x06, { 10: 1 })
    expect(await nvme.admin(id, new Uint8Array(63))).toMatchObject({ status: einval })
    for (const opcode of [0x00, 0x01, 0x04, 0x05, 0x08, 0x0c, 0x7c, 0x7f]) {
      expect(await nvme.admin(id, command(opcode))).toMatchObject({ status: einval })
    }
    // Half of a fused pair, the host memory buffer, data for a command that has none, and too little memory for one.
    expect(await nvme.admin(id, command(0x118))).toMatchObject({ status: einval })
    expect(await nvme.admin(id, command(0x09, { 10: 0x0d, 11: 1 }))).toMatchObject({ status: einval })
    expect(await nvme.admin(id, command(0x18), [...slab, 0, 4])).toMatchObject({ status: einval })
    expect(await nvme.admin(id, identify, [...slab, 0, 4092])).toMatchObject({ status: einval })
    expect(await nvme.admin(id, identify)).toMatchObject({ status: einval })
    expect(await nvme.admin(id, command(0x02, { 10: 0x03ff0001 }), [...slab, 0, 4092])).toMatchObject({
      status: einval
    })
    // None of them has broken it, nor a command's number and addresses of our own making: they are not sent.
    const made = command(0x06, { 0: 0xffff_c006, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1 })
    const answered = await nvme.admin(id, made, [...slab, 0, 4096])
    expect([answered.status, statusOf(answered.bytes)]).toEqual([0, [0, 0]])
    expect(await nvme.admin(id, identify, [slab[0], slab[1] + 1, 0, 4096])).toMatchObject({ status: ebadf })
    expect(await nvme.admin(id, identify, [...slab, 2 ** 20 - 4095, 4096])).toMatchObject({ status: -14 })
    expect(await nvme.admin(id + 1000, identify, [...slab, 0, 4096])).toMatchObject({ status: ebadf })
    expect(await nvme.call(id, "nonsense")).toMatchObject({ status: -38 })
    expect(await nvme.open(id, 4)).toMatchObject({ status: enoent })
    expect(await nvme.open(id, 0)).toMatchObject({ status: enoent })
    expect(await nvme.begin(optionsFor(port, { hostnqn: "n".repeat(300) })).answer).toMatchObject({ status: einval })
    expect(await nvme.begin(optionsFor(port, { traddr: "1".repeat(300) })).answer).toMatchObject({ status: einval })
    expect(await nvme.begin(optionsFor(port, { hostId: new Uint8Array(8) })).answer).toMatchObject({ status: einval })
    const keyless = await nvme.begin(optionsFor(port, { psk: "no such key" })).answer
    expect(keyless).toMatchObject({ status: -126, text: expect.stringContaining("no such key") })
  })

  it("two controllers of one host at one address are two", async () => {
    const [first, second] = [await connect(), await connect()]
    const listed = await rpc("nvmf_subsystem_get_controllers", { nqn: raw.subnqn })
    expect(listed).toHaveLength(2)
    await nvme.call(first, "disconnect")
    connected.delete(first)
    expect((await nvme.call(second, "namespaces")).text).toBe("[1,2,3]")
  })

  it("reads what it wrote, in one piece and in many, also beyond what one command carries", async () => {
    const queue = await spawn()
    const { channel, close } = await nvme.attach(queue, await connect())
    for (let i = 0; i < 2 ** 19; i++) bytes[i] = (i * 31 + (i >> 9)) & 0xff
    transfer(queue, Opcode.Write, 1, channel, slab, { block: 5, blocks: 1024 })
    expect(await once(queue)).toMatchObject({ id: 1, status: 0 })
    // 17 segments are one more than SPDK's driver puts into a command of NVMe/TCP.
    const segments = 17
    submit(queue, Opcode.Read, 2, { channel, segments, offsetBlocks: 5, lengthBlocks: 1024 })
    const half = 2 ** 19
    const pieces = Array.from({ length: segments }, (_, k) => {
      const length = k === segments - 1 ? half - k * 30_720 : 30_720
      return [...slab, half + k * 30_720, length]
    })
    for (const slot of slotsOfSegments(pieces)) queue.write(slot)
    expect(await once(queue)).toMatchObject({ id: 2, status: 0 })
    expect(Buffer.compare(bytes.subarray(0, half), bytes.subarray(half))).toBe(0)
    await close()
  })

  it("zeroes and flushes; refuses a range outside", async () => {
    const queue = await spawn()
    const { channel, close } = await nvme.attach(queue, await connect())
    const range = (opcode: Opcode, id: number, block: number, blocks: number) =>
      submit(queue, opcode, id, { channel, offsetBlocks: block, lengthBlocks: blocks })
    bytes.fill(0xa5, 0, blockSize)
    transfer(queue, Opcode.Write, 1, channel, slab, { block: 65_535, blocks: 1 })
    await once(queue)
    // Every block of it: as many as one command has room for.
    range(Opcode.WriteZeroes, 2, 0, 65_536)
    expect(await once(queue)).toMatchObject({ id: 2, status: 0 })
    transfer(queue, Opcode.Read, 3, channel, slab, { block: 65_535, blocks: 1 })
    await once(queue)
    expect(bytes.subarray(0, blockSize).every((byte) => byte === 0)).toBe(true)
    // A target with a namespace that cannot deallocate has none that can.
    range(Opcode.Unmap, 4, 0, 65_536)
    expect(await once(queue)).toMatchObject({ id: 4, detail: Detail.NotSupported })
    range(Opcode.Flush, 5, 0, 1)
    expect(await once(queue)).toMatchObject({ id: 5, status: 0 })
    range(Opcode.WriteZeroes, 6, 65_530, 7)
    expect(await once(queue)).toMatchObject({ id: 6, status: einval, detail: Detail.BlockRange })
    range(Opcode.Reset, 7, 0, 0)
    expect(await once(queue)).toMatchObject({ id: 7, detail: Detail.NotSupported })
    await close()
  })

  it("passes any command through, and refuses what is none", async () => {
    const queue = await spawn()
    const { channel, close } = await nvme.attach(queue, await connect())
    bytes.fill(0x3c, 0, blockSize)
    transfer(queue, Opcode.Write, 1, channel, slab, { block: 9, blocks: 1 })
    await once(queue)
    const at = 8192
    const place = (opcode: number, words: Record<number, number>) => bytes.set(command(opcode, words), at)
    const whole: [number, number, number, number] = [...slab, at, 64]
    // Compare with what is there, and with something else.
    for (const [fill, expected] of [
      [0x3c, [0, 0]],
      [0x3d, [2, 0x85]]
    ] as const) {
      bytes.fill(fill, 0, blockSize)
      place(0x05, { 1: 1, 10: 9 })
      raw.passthru(queue, 2, channel, [whole, [...slab, 0, blockSize]])
      expect(await once(queue)).toMatchObject({ id: 2, status: 0 })
      expect(statusOf(bytes.subarray(at, at + 16))).toEqual(expected)
    }
    const refusals: ReadonlyArray<readonly [() => void, object]> = [
      [() => raw.passthru(queue, 3, channel, []), { detail: Detail.TooManySegments }],
      [() => raw.passthru(queue, 3, channel, [whole, whole, whole]), { detail: Detail.TooManySegments }],
      [() => raw.passthru(queue, 3, channel, [[...slab, at, 63]]), { detail: Detail.LengthMismatch }],
      [() => raw.passthru(queue, 3, channel, [[...slab, 2 ** 20, 64]]), { detail: Detail.SlabRange }],
      [() => raw.passthru(queue, 3, channel, [[slab[0], 77, at, 64]]), { detail: Detail.StaleSlab }],
      [() => (place(0x7f, {}), raw.passthru(queue, 3, channel, [whole])), { status: einval }],
      // Flush carries no data.
      [() => (place(0x00, { 1: 1 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 512]])), { status: einval }],
      // Another namespace, all of them, half of a fused pair, and more blocks than there is memory for.
      [() => (place(0x02, { 1: 2 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 512]])), { status: einval }],
      [() => (place(0x00, { 1: 2 ** 32 - 1 }), raw.passthru(queue, 3, channel, [whole])), { status: einval }],
      [() => (place(0x105, { 1: 1 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 512]])), { status: einval }],
      [
        () => (place(0x02, { 1: 1, 12: 1 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 512]])),
        { status: einval }
      ],
      [() => (place(0x02, { 1: 1 }), raw.passthru(queue, 3, channel, [whole])), { status: einval }],
      [
        () => (place(0x09, { 1: 1, 10: 2 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 32]])),
        { status: einval }
      ],
      [
        () => (place(0x19, { 1: 1, 12: 1 }), raw.passthru(queue, 3, channel, [whole, [...slab, 0, 32]])),
        { status: einval }
      ]
    ]
    for (const [send, expected] of refusals) {
      send()
      expect(await once(queue)).toMatchObject({ id: 3, ...expected })
    }
    await close()
    // A bdev takes none.
    const bdev = await spdk.open("fast", false)
    const opened = await spdk.get((addon, request) => addon.channelOpen(request, queue.id, bdev))
    raw.passthru(queue, 4, [opened.a, opened.b], [whole])
    expect(await once(queue)).toMatchObject({ id: 4, detail: Detail.NotSupported })
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, opened.a, opened.b))
    await spdk.get((addon, request) => addon.bdevClose(request, bdev))
  })

  it("takes more requests than a queue pair has room for", async () => {
    const queue = await spawn()
    const { channel, close } = await nvme.attach(queue, await connect({ ioQueueSize: 16 }))
    const count = 900
    for (let id = 0; id < count; id++) {
      transfer(queue, Opcode.Read, id, channel, slab, { block: id * 64, blocks: 64, slabOffset: 0 })
    }
    queue.publish()
    const seen = await collect(queue, count)
    expect(seen.every(({ status }) => status === 0)).toBe(true)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(count)
    await close()
  })

  it("aborts what the device has", async () => {
    const queue = await spawn()
    const { channel, close } = await nvme.attach(queue, await connect(), 2)
    const count = 20
    for (let id = 0; id < count; id++) transfer(queue, Opcode.Read, id, channel, slab, { block: id, blocks: 1 })
    for (let id = 0; id < count; id++) submit(queue, Opcode.Abort, 1000 + id, { target: id })
    queue.publish()
    const seen = await collect(queue, 2 * count)
    expect(seen).toMatchObject(seen.map(({ id }) => ({ status: id < 1000 ? ecanceled : 0 })))
    expect(new Set(seen.map(({ id }) => id)).size).toBe(2 * count)
    await close()
  })

  it("a queue that ends answers what a device keeps to itself, and so does a disconnect", async () => {
    const queue = await spawn()
    const controller = await connect()
    const { channel, target } = await nvme.attach(queue, controller, 2)
    for (let id = 0; id < 50; id++) transfer(queue, Opcode.Read, id, channel, slab, { block: id, blocks: 1 })
    queue.publish()
    await until("it took them", () => queue.consumed === queue.tail)
    await nvme.call(controller, "disconnect")
    connected.delete(controller)
    const ended = await collect(queue, 50)
    expect(ended.every(({ nvme: word, status }) => status === eio && word === abortedBySqDeletion)).toBe(true)
    expect(nvme.events(EventKind.Removed, target)).toHaveLength(1)
    transfer(queue, Opcode.Read, 60, channel, slab, { block: 0, blocks: 1 })
    expect(await once(queue)).toMatchObject({ id: 60, status: enodev, detail: Detail.Removed })
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))

    const other = await spawn()
    const kept = await nvme.attach(other, await connect(), 2)
    for (let id = 0; id < 50; id++) transfer(other, Opcode.Read, id, kept.channel, slab, { block: id, blocks: 1 })
    other.publish()
    await until("it took them", () => other.consumed === other.tail)
    await other.exit()
    expect(await collect(other, 50)).toHaveLength(50)
  })

  it("a reset answers what is in flight, and what comes after it goes through", async () => {
    const queue = await spawn()
    const controller = await connect()
    const slow = await nvme.attach(queue, controller, 2)
    const fast = await nvme.attach(queue, controller, 1)
    for (let id = 0; id < 50; id++) transfer(queue, Opcode.Read, id, slow.channel, slab, { block: id, blocks: 1 })
    queue.publish()
    await until("it took them", () => queue.consumed === queue.tail)
    const resets = [nvme.call(controller, "reset"), nvme.call(controller, "reset")]
    const admin = nvme.admin(controller, command(0x06, { 10: 1 }), [...slab, 4096, 4096])
    // They come while it is away, or before or after that.
    for (let id = 100; id < 150; id++) transfer(queue, Opcode.Read, id, fast.channel, slab, { block: id, blocks: 1 })
    queue.publish()
    const seen = await collect(queue, 100)
    expect(await Promise.all(resets)).toMatchObject([{ status: 0 }, { status: 0 }])
    expect(await admin).toMatchObject({ status: 0 })
    for (const { id, nvme: word } of seen) if (id < 100) expect(word).toBe(abortedBySqDeletion)
    for (let round = 0; round < 5; round++) {
      transfer(queue, Opcode.Read, 200, fast.channel, slab, { block: 0, blocks: 8 })
      expect(await once(queue)).toMatchObject({ id: 200, status: 0 })
      expect(await nvme.call(controller, "reset")).toMatchObject({ status: 0 })
    }
    await slow.close()
    await fast.close()
  })

  it("tells of namespaces that come, grow and go", async () => {
    const queue = await spawn()
    const controller = await connect()
    const { channel, close, target } = await nvme.attach(queue, controller, 3)
    await rpc("bdev_null_resize", { name: "null", new_size: 4 })
    await until("it has grown", () => nvme.events(EventKind.Resized, target).some(({ a }) => a === 8192))
    transfer(queue, Opcode.Read, 1, channel, slab, { block: 8191, blocks: 1 })
    expect(await once(queue)).toMatchObject({ status: 0 })
    await rpc("nvmf_subsystem_remove_ns", { nqn: raw.subnqn, nsid: 3 })
    await until("it is gone", () => nvme.events(EventKind.Removed, target).length === 1)
    expect((await nvme.call(controller, "namespaces")).text).toBe("[1,2]")
    transfer(queue, Opcode.Read, 2, channel, slab, { block: 0, blocks: 1 })
    expect(await once(queue)).toMatchObject({ id: 2, status: enodev, detail: Detail.Removed })
    await raw.addNamespace(rpc, "null")
    await until("it is back", async () => (await nvme.call(controller, "namespaces")).text === "[1,2,3]")
    expect(nvme.events(EventKind.Nvme, controller).filter(({ a }) => a === 0).length).toBeGreaterThan(1)
    await close()
  })

  it("gives up on somebody who listens and says nothing", async () => {
    const server = createServer().listen(0, "127.0.0.1")
    await new Promise((resolve) => server.once("listening", resolve))
    const address = server.address()
    const silent = typeof address === "object" ? (address?.port ?? 0) : 0
    // Each by its own limit; the other one would be there for a minute.
    const { answer, id } = nvme.begin(optionsFor(silent, { connectTimeoutMillis: 60_000 }))
    const late = await nvme.begin(optionsFor(silent, { connectTimeoutMillis: 300 })).answer
    expect(late).toMatchObject({ status: etimedout })
    await nvme.call(id, "giveUp")
    expect(await answer).toMatchObject({ status: ecanceled })
    server.close()
    await until("nothing is left of them", () => spdk.addon.usage().nvmeControllers === 0)
  })

  it(`${controllers} controllers come and go, and nothing is left of them`, async () => {
    const queue = await spawn()
    const before = spdk.addon.usage()
    const known = async (): Promise<number> => {
      const list = await rpc("nvmf_subsystem_get_controllers", { nqn: raw.subnqn })
      return Array.isArray(list) ? list.length : Infinity
    }
    // Those of I/O that takes an hour, which the target waits for.
    const kept = await known()
    for (let round = 0; round < controllers; round++) {
      const controller = await nvme.connect(optionsFor(port))
      const { channel, close } = await nvme.attach(queue, controller)
      transfer(queue, Opcode.Read, round, channel, slab, { block: 0, blocks: 1 })
      expect(await once(queue)).toMatchObject({ status: 0 })
      if (round % 2 === 0) await close()
      await nvme.call(controller, "disconnect")
      if (round % 2 === 1) await close()
    }
    expect(spdk.addon.usage()).toEqual(before)
    await until("the target has forgotten them", async () => (await known()) <= kept)
  })
})
