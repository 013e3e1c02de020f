/** SPDK's blobstore through the bare addon: its metadata by calls, its blobs over the rings, and how both end. */
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { afterEach, beforeAll, expect, it } from "vitest"
import { collect, numbersOf, RawBlobs, submit } from "./support/rawBlobs.ts"
import { delay, describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const blockSize = 512
const clusterBlocks = 128
const eio = -5
const enotrecoverable = -131
const ebadf = -9
const ebusy = -16
const einval = -22
const enoent = -2
const eilseq = -84
const eshutdown = -108

describeWithSpdk("SPDK's blobstore", () => {
  let spdk: RawSpdk
  let blobs: RawBlobs
  let slab: readonly [slot: number, generation: number]
  let memory: Uint8Array
  let bdevs = 0
  const queues: Array<RawQueue> = []

  beforeAll(async () => {
    spdk = new RawSpdk()
    blobs = new RawBlobs(spdk)
    expect(await spdk.start({ logLevel: "disabled" })).toMatchObject({ status: 0 })
    const allocated = spdk.addon.dmaAllocateNow(256 * 1024, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
    memory = new Uint8Array(spdk.addon.dmaView(...slab) as ArrayBuffer)
  }, 60_000)

  afterEach(async () => {
    for (const queue of queues.splice(0)) await queue.exit()
    expect(spdk.addon.usage()).toMatchObject({ blobstores: 0, blobs: 0, channels: 0, descriptors: 0 })
  })

  const spawn = async (): Promise<RawQueue> => {
    const queue = await spdk.spawn(4096, 4096)
    queues.push(queue)
    return queue
  }

  const malloc = async (mebi = 8): Promise<string> => {
    const name = `blobs${bdevs++}`
    await spdk.rpc("bdev_malloc_create", { name, num_blocks: mebi * 2048, block_size: blockSize })
    return name
  }

  const io = async (queue: RawQueue, opcode: number, channel: ArrayLike<number>, offset: number, blocks: number) => {
    submit(queue, opcode, 1, channel, slab, offset, blocks)
    queue.publish()
    const [{ detail, status } = { detail: -1, status: -1 }] = await collect(queue, 1)
    return { detail, status }
  }

  const done = { detail: Detail.None, status: 0 }

  it("carries the I/O of one blob from two queues, each request checked against the blob", async () => {
    const store = await blobs.init(await malloc())
    const id = await blobs.create(store, 4)
    const blob = await blobs.open(store, id)
    const [one, two] = [await spawn(), await spawn()]
    const first = await blobs.channel(one, blob)
    const second = await blobs.channel(two, blob)
    memory.fill(3)
    // Across a cluster's end.
    expect(await io(one, Opcode.Write, first, clusterBlocks - 4, 8)).toEqual(done)
    memory.fill(0)
    expect(await io(two, Opcode.Read, second, clusterBlocks - 4, 8)).toEqual(done)
    expect(memory.subarray(0, 8 * blockSize).every((byte) => byte === 3)).toBe(true)
    expect(await io(two, Opcode.WriteZeroes, second, 0, 4 * clusterBlocks)).toEqual(done)
    expect(await io(one, Opcode.Read, first, clusterBlocks - 4, 8)).toEqual(done)
    expect(memory.subarray(0, 8 * blockSize).every((byte) => byte === 0)).toBe(true)
    expect(await io(one, Opcode.Unmap, first, 0, clusterBlocks)).toEqual(done)

    const range = { detail: Detail.BlockRange, status: einval }
    expect(await io(one, Opcode.Read, first, 4 * clusterBlocks - 1, 2)).toEqual(range)
    expect(await io(one, Opcode.Read, first, 0xffffffff, 1)).toEqual(range)
    expect(await io(one, Opcode.Read, first, 0, 0)).toEqual(range)
    expect(await io(one, Opcode.Flush, first, 0, 1)).toMatchObject({ detail: Detail.NotSupported })
    expect(await io(one, Opcode.Reset, first, 0, 0)).toMatchObject({ detail: Detail.NotSupported })
    expect(numbersOf((await blobs.get("blob.resize", blob, { numbers: [5] })).bytes)).toEqual([5 * clusterBlocks])
    expect(await io(one, Opcode.Write, first, 4 * clusterBlocks - 1, 2)).toEqual(done)
    await blobs.get("blob.resize", blob, { numbers: [1] })
    expect(await io(one, Opcode.Write, first, clusterBlocks, 1)).toEqual(range)
    await blobs.get("blob.setReadOnly", blob)
    expect(await io(one, Opcode.Write, first, 0, 1)).toMatchObject({ detail: Detail.ReadOnly })
    expect(await io(one, Opcode.Read, first, 0, 1)).toEqual(done)

    expect((await blobs.ask("unload", store)).status).toBe(ebusy)
    expect((await blobs.ask("delete", store, { numbers: [id] })).status).toBe(ebusy)
    let closed = false
    const closing = blobs.close(blob).then(() => (closed = true))
    // Behind the close on the same thread; a queue is another one.
    expect((await blobs.ask("blob.sync", blob)).status).toBe(ebadf)
    expect((await spdk.ask((addon, request) => addon.channelOpen(request, one.id, blob))).status).toBe(ebadf)
    await spdk.get((addon, request) => addon.channelClose(request, one.id, ...first))
    expect(closed).toBe(false)
    await spdk.get((addon, request) => addon.channelClose(request, two.id, ...second))
    await closing
    expect(await io(one, Opcode.Read, first, 0, 1)).toMatchObject({ detail: Detail.StaleChannel })
    await blobs.get("unload", store)
  })

  it("refuses handles that are stale or of another kind, and names and ids that SPDK would misread", async () => {
    const bdev = await malloc()
    const store = await blobs.init(bdev)
    const id = await blobs.create(store, 1)
    const blob = await blobs.open(store, id)
    expect((await blobs.ask("blob.sync", blob + 100)).status).toBe(ebadf)
    expect((await blobs.ask("ids", store + 100)).status).toBe(ebadf)
    expect((await blobs.ask("info", store + 100)).status).toBe(ebadf)
    const descriptor = await spdk.open(bdev, false)
    expect((await blobs.ask("blob.sync", descriptor)).status).toBe(ebadf)
    await blobs.close(descriptor)
    // Its low half names a page that is in use.
    expect((await blobs.ask("open", store, { numbers: [id - 2 ** 32, 0] })).status).toBe(enoent)
    expect((await blobs.ask("open", store, { numbers: [id + 2 ** 32, 0] })).status).toBe(enoent)
    expect((await blobs.ask("delete", store, { numbers: [id + 1] })).status).toBe(enoent)
    const name = (text: string) => Buffer.from(text)
    const setXattr = (key: string, value: Uint8Array) =>
      blobs.ask("blob.setXattr", blob, { values: [name(key), value] })
    expect((await setXattr("a\0b", name("x"))).status).toBe(einval)
    expect((await setXattr("", name("x"))).status).toBe(einval)
    // 65,536 more than fits in 16 bits.
    expect((await setXattr("long", new Uint8Array(65_536 + 4))).status).toBe(-12)
    expect((await setXattr("ok", new Uint8Array([0, 1, 0]))).status).toBe(0)
    expect([...((await blobs.get("blob.xattrs", blob)).bytes ?? [])]).toEqual([
      2, 0, 0, 0, 3, 0, 0, 0, 111, 107, 0, 1, 0
    ])
    expect((await blobs.ask("load", 0, { texts: [bdev, ""] })).status).toBe(ebusy)
    await blobs.close(blob)
    expect((await blobs.ask("blob.sync", blob)).status).toBe(ebadf)
    await blobs.get("unload", store)
    expect((await blobs.ask("ids", store)).status).toBe(ebadf)
    expect((await blobs.ask("load", 0, { texts: [bdev, "OTHER"] })).status).toBe(-6)
    expect((await blobs.ask("load", 0, { texts: ["nothing", ""] })).status).toBe(-19)
  })

  it("takes more requests at once than a blobstore's channel has sets for, holes and first writes included", async () => {
    const store = await blobs.init(await malloc(24))
    const blob = await blobs.open(store, await blobs.create(store, 200, true))
    const queue = await spawn()
    const channel = await blobs.channel(queue, blob)
    const count = 3000
    for (let id = 0; id < count; id++) {
      // Every third crosses into the next cluster.
      const offset =
        id % 3 === 0 ? clusterBlocks * (id % 199) + clusterBlocks - 4 : (id * 8) % (200 * clusterBlocks - 8)
      const opcode = id % 2 === 0 ? Opcode.Read : Opcode.Write
      submit(queue, opcode, id, channel, slab, offset, 8)
    }
    queue.publish()
    const seen = await collect(queue, count)
    expect(seen.filter(({ status }) => status !== 0)).toEqual([])
    expect(new Set(seen.map(({ id }) => id)).size).toBe(count)
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))
    await blobs.close(blob)
    await blobs.get("unload", store)
  })

  it("resizes under load: what lies past the end is refused, and the rest goes on", async () => {
    const store = await blobs.init(await malloc())
    const id = await blobs.create(store, 8)
    const blob = await blobs.open(store, id)
    const queue = await spawn()
    const channel = await blobs.channel(queue, blob)
    let submitted = 0
    const seen: Array<{ readonly status: number; readonly detail: number }> = []
    const pump = (): void => {
      seen.push(...queue.take())
      for (; submitted - seen.length < 1500; submitted++) {
        const opcode = submitted % 3 === 0 ? Opcode.Read : Opcode.Write
        submit(queue, opcode, submitted & 4095, channel, slab, (submitted * 24) % (8 * clusterBlocks - 8), 8)
      }
      queue.publish()
    }
    for (let round = 0; round < 40; round++) {
      pump()
      const clusters = round % 2 === 0 ? 2 : 8
      let resized = false
      const resizing = blobs.get("blob.resize", blob, { numbers: [clusters] }).then(() => (resized = true))
      await until("the resize ends", () => {
        pump()
        return resized
      })
      await resizing
    }
    seen.push(...(await collect(queue, submitted - seen.length)))
    expect(seen.length).toBe(submitted)
    const refused = seen.filter(({ status }) => status !== 0)
    expect(refused.every(({ status }) => status === einval)).toBe(true)
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThan(submitted)
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))
    await blobs.close(blob)
    await blobs.get("unload", store)
  })

  it("closes a channel and a blob after the I/O that is in flight", async () => {
    const base = await malloc()
    await spdk.rpc("bdev_delay_create", {
      base_bdev_name: base,
      name: "slow_blobs",
      avg_read_latency: 200_000,
      p99_read_latency: 200_000,
      avg_write_latency: 1,
      p99_write_latency: 1
    })
    const store = await blobs.init("slow_blobs")
    const blob = await blobs.open(store, await blobs.create(store, 4))
    const queue = await spawn()
    const channel = await blobs.channel(queue, blob)
    for (let id = 0; id < 64; id++) submit(queue, Opcode.Read, id, channel, slab, id, 1)
    queue.publish()
    await until("all are taken", () => queue.consumed === queue.tail)
    const closing = blobs.close(blob)
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))
    await closing
    expect(queue.take().map(({ status }) => status)).toEqual(Array.from({ length: 64 }, () => 0))
    await blobs.get("unload", store)
    await spdk.rpc("bdev_delay_delete", { name: "slow_blobs" })
  })

  it("lets a bdev go that is removed under load, and says so to whoever comes later", async () => {
    const bdev = await malloc()
    const store = await blobs.init(bdev)
    const open = [await blobs.create(store, 8), await blobs.create(store, 8, true)]
    const handles = [await blobs.open(store, open[0] ?? 0), await blobs.open(store, open[1] ?? 0)]
    const pair = [await spawn(), await spawn()]
    const submitted = [0, 0]
    const answered = [0, 0]
    const channels = await Promise.all(pair.map((queue, i) => blobs.channel(queue, handles[i] ?? 0)))
    let removed = false
    const removing = delay(30)
      .then(() => spdk.rpc("bdev_malloc_delete", { name: bdev }))
      .then(() => (removed = true))
    await until("the removal goes through", async () => {
      pair.forEach((queue, i) => {
        answered[i] = (answered[i] ?? 0) + queue.take().length
        for (let n = 0; n < 32 && (submitted[i] ?? 0) - (answered[i] ?? 0) < 1024; n++) {
          const id = (submitted[i] ?? 0) & 4095
          submit(queue, n % 2 === 0 ? Opcode.Write : Opcode.Read, id, channels[i] ?? [], slab, (id * 8) % 1000, 8)
          submitted[i] = (submitted[i] ?? 0) + 1
        }
        queue.publish()
      })
      // An operation on metadata now and then.
      if (!removed)
        await Promise.race([blobs.ask("blob.setXattr", handles[0] ?? 0, { values: [slabless, slabless] }), delay(2)])
      return removed
    })
    await removing
    await until("everything is answered", () => {
      pair.forEach((queue, i) => (answered[i] = (answered[i] ?? 0) + queue.take().length))
      return answered.every((count, i) => count === submitted[i])
    })
    expect((await blobs.ask("ids", store)).status).toBeOneOf([eshutdown, ebadf])
    expect((await blobs.ask("blob.sync", handles[0] ?? 0)).status).toBeOneOf([eshutdown, ebadf])
    expect((await blobs.ask("info", store)).status).toBe(eshutdown)
    const [queue] = pair
    if (queue !== undefined) {
      expect(await io(queue, Opcode.Read, channels[0] ?? [], 0, 1)).toMatchObject({ detail: Detail.Removed })
    }
    for (const handle of handles) expect((await blobs.close(handle)).status).toBe(0)
    expect((await blobs.ask("unload", store)).status).toBe(eshutdown)
  })

  const slabless = new Uint8Array([65])

  it("gives memory and bdev back when metadata cannot be written any more", async () => {
    const base = await malloc()
    await spdk.rpc("bdev_error_create", { base_name: base })
    const bdev = `EE_${base}`
    const fail = (type: "write" | "clear", num: number) =>
      spdk.rpc("bdev_error_inject_error", { name: bdev, io_type: type, error_type: "failure", num })

    // An initialisation that fails at any of its writes holds nothing.
    await fail("write", 1)
    expect((await blobs.ask("init", 0, { numbers: [65_536, 64, 2], texts: [bdev, ""] })).status).toBe(eio)
    expect(spdk.addon.usage().blobstores).toBe(0)

    const store = await blobs.init(bdev)
    const blob = await blobs.open(store, await blobs.create(store, 4))
    await blobs.get("unload", store).catch(() => {})
    await blobs.get("blob.setXattr", blob, { values: [slabless, slabless] })
    await fail("write", 1000)
    expect((await blobs.ask("blob.sync", blob)).status).toBe(enotrecoverable)
    expect((await blobs.close(blob)).status).toBe(0)
    expect((await blobs.ask("unload", store)).status).toBe(0)
    expect(spdk.addon.usage()).toMatchObject({ blobstores: 0, blobs: 0 })

    await fail("clear", 1)
    const again = (await blobs.get("load", 0, { texts: [bdev, ""] })).a
    const [id] = numbersOf((await blobs.get("ids", again)).bytes)
    const dirty = await blobs.open(again, id ?? 0)
    await blobs.get("blob.setXattr", dirty, { values: [slabless, slabless] })
    await fail("write", 1000)
    await spdk.rpc("bdev_error_delete", { name: bdev })
    await until("the blobstore goes with its bdev", () => spdk.addon.usage().blobstores === 0)
    expect((await blobs.close(dirty)).status).toBe(0)
  })

  it("gives the bdev back when SPDK unloads the blobstore neither with the device nor without it", async () => {
    const base = await malloc()
    await spdk.rpc("bdev_error_create", { base_name: base })
    const name = `EE_${base}`
    const spoilNextRead = () =>
      spdk.rpc("bdev_error_inject_error", {
        name,
        io_type: "read",
        error_type: "corrupt_data",
        num: 1,
        corrupt_offset: 0,
        corrupt_value: 255
      })
    // The copy of the super block that stands for a lost device.
    await spoilNextRead()
    const store = await blobs.init(name)
    const blob = await blobs.open(store, await blobs.create(store, 4))
    const queue = await spawn()
    const channel = await blobs.channel(queue, blob)
    expect(await io(queue, Opcode.Write, channel, 0, 8)).toEqual(done)
    await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))
    await blobs.close(blob)
    await spoilNextRead()
    expect((await blobs.ask("unload", store)).status).toBe(eilseq)
    expect((await blobs.ask("ids", store)).status).toBe(ebadf)
    expect(spdk.addon.usage()).toMatchObject({ blobstores: 0, blobs: 0 })

    // Nothing holds the bdev: it can be loaded again, and goes when it is deleted.
    await spoilNextRead()
    expect((await blobs.ask("load", 0, { texts: [name, ""] })).status).toBe(eilseq)
    const again = (await blobs.get("load", 0, { texts: [name, ""] })).a
    expect(numbersOf((await blobs.get("ids", again)).bytes).length).toBe(1)
    await blobs.get("unload", again)
    await spdk.rpc("bdev_error_delete", { name })
    await spdk.rpc("bdev_malloc_delete", { name: base })
  })
})
