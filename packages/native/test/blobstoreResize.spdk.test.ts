/** Blobs that shrink, grow and sync while two reactors read and write them. */
import { Opcode } from "@effect-spdk/native/Layout"
import { afterEach, beforeAll, expect, it } from "vitest"
import { RawBlobs, submit } from "./support/rawBlobs.ts"
import { describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const blockSize = 512
const clusterBytes = 4096
const clusterBlocks = clusterBytes / blockSize
/** Clusters that an extent page has room for: sizes on both sides of a multiple move both lists of a blob. */
const perExtentPage = 512
const einval = -22
const slots = 64
const rounds = process.env["EFFECT_SPDK_LONG"] === "1" ? 600 : 40

/** Blocks say where they lie: what is read from elsewhere is found out. */
const markOf = (block: number): number => (block * 2_654_435_761) >>> 0

describeWithSpdk("a blob that shrinks and grows under load", () => {
  let spdk: RawSpdk
  let blobs: RawBlobs
  let slab: readonly [slot: number, generation: number]
  let memory: DataView
  let cores: ReadonlyArray<number>
  const queues: Array<RawQueue> = []

  beforeAll(async () => {
    spdk = new RawSpdk()
    blobs = new RawBlobs(spdk)
    cores = spdk.addon.cores().slice(0, 2)
    expect(await spdk.start({ logLevel: "disabled", cores: `[${cores.join(",")}]` })).toMatchObject({ status: 0 })
    const allocated = spdk.addon.dmaAllocateNow(slots * clusterBytes, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
    memory = new DataView(spdk.addon.dmaView(...slab) as ArrayBuffer)
    await spdk.rpc("bdev_malloc_create", { name: "resized", num_blocks: 65_536, block_size: blockSize })
  }, 60_000)

  afterEach(async () => {
    for (const queue of queues.splice(0)) await queue.exit()
    expect(spdk.addon.usage()).toMatchObject({ blobstores: 0, blobs: 0, channels: 0, descriptors: 0 })
  })

  /** One queue with as many requests on the way as it has slots of memory. */
  class Load {
    readonly queue: RawQueue
    readonly channel: readonly [number, number]
    readonly firstSlot: number
    readonly free: Array<number>
    readonly asked = new Map<number, { readonly block: number; readonly isRead: boolean }>()
    served = 0
    refused = 0
    random: number

    constructor(queue: RawQueue, channel: readonly [number, number], firstSlot: number, count: number) {
      this.queue = queue
      this.channel = channel
      this.firstSlot = firstSlot
      this.free = Array.from({ length: count }, (_, i) => firstSlot + i)
      this.random = firstSlot + 1
    }

    /** `kept` blocks are there at any moment, those after them now and then. */
    pump(kept: number, most: number): void {
      this.take(kept)
      for (let slot = this.free.pop(); slot !== undefined; slot = this.free.pop()) {
        this.random = (Math.imul(this.random, 1_664_525) + 1_013_904_223) >>> 0
        const isRead = this.random % 2 === 0
        const range = this.random % 3 === 0 ? most : kept
        const block = Math.floor(((this.random >>> 8) % range) / clusterBlocks) * clusterBlocks
        const at = slot * clusterBytes
        memory.setUint32(at, isRead ? 0 : markOf(block), true)
        this.asked.set(slot, { block, isRead })
        const opcode = isRead ? Opcode.Read : Opcode.Write
        submit(this.queue, opcode, slot, this.channel, slab, block, clusterBlocks, at)
      }
      this.queue.publish()
    }

    take(kept: number): void {
      for (const { id, status } of this.queue.take()) {
        const request = this.asked.get(id)
        if (request === undefined) throw new Error(`a completion of nothing: ${id}`)
        this.asked.delete(id)
        this.free.push(id)
        if (status !== 0) {
          expect(status).toBe(einval)
          expect(request.block).toBeGreaterThanOrEqual(kept)
          this.refused++
          continue
        }
        this.served++
        const mark = memory.getUint32(id * clusterBytes, true)
        // What has been cut off comes back empty.
        const isEmpty = request.block >= kept && mark === 0
        if (request.isRead && !isEmpty && mark !== markOf(request.block)) {
          throw new Error(`block ${request.block} reads as ${mark} instead of ${markOf(request.block)}`)
        }
      }
    }
  }

  const variants = [
    { name: "with clusters of its own", thin: false, extentTable: true },
    { name: "thin", thin: true, extentTable: true },
    { name: "thin, with run-length extents", thin: true, extentTable: false }
  ]
  for (const { extentTable, name, thin } of variants) {
    it(`keeps its bytes, ${name}`, async () => {
      const store = (await blobs.get("init", 0, { numbers: [clusterBytes, 256, 2], texts: ["resized", "RAW"] })).a
      const smallest = perExtentPage - 200
      const largest = 3 * perExtentPage
      const id = await blobs.create(store, largest, thin, extentTable)
      const blob = await blobs.open(store, id)
      const loads: Array<Load> = []
      for (const [i, core] of [cores[0] ?? 0, cores.at(-1) ?? 0].entries()) {
        const queue = await spdk.spawn(4096, 4096, `0x${(1 << core).toString(16)}`)
        queues.push(queue)
        loads.push(new Load(queue, await blobs.channel(queue, blob), (i * slots) / 2, slots / 2))
      }
      await fill(loads[0]?.queue, loads[0]?.channel, largest)

      const kept = smallest * clusterBlocks
      const pump = () => loads.forEach((load) => load.pump(kept, largest * clusterBlocks))
      for (let round = 0; round < rounds; round++) {
        const clusters = round % 2 === 0 ? smallest + ((round * 97) % (largest - smallest)) : largest
        let ended = false
        const change = blobs.get("blob.resize", blob, { numbers: [clusters] }).then(async () => {
          await blobs.get("blob.setXattr", blob, { values: [Buffer.from("round"), Buffer.from(String(round))] })
          await blobs.get("blob.sync", blob)
          ended = true
        })
        await until("the change ends", () => {
          pump()
          return ended
        })
        await change
      }
      await until("everything is answered", () => {
        for (const load of loads) load.take(kept)
        return loads.every(({ asked }) => asked.size === 0)
      })
      expect(loads.every(({ refused, served }) => served > 0 && refused < served)).toBe(true)
      for (const { channel, queue } of loads) {
        await spdk.get((addon, request) => addon.channelClose(request, queue.id, ...channel))
      }
      await blobs.close(blob)
      await blobs.get("unload", store)
    })
  }

  /** Every cluster with its mark. */
  const fill = async (
    queue: RawQueue | undefined,
    channel: readonly [number, number] | undefined,
    clusters: number
  ) => {
    if (queue === undefined || channel === undefined) throw new Error("no queue")
    for (let cluster = 0; cluster < clusters;) {
      const count = Math.min(slots, clusters - cluster)
      for (let slot = 0; slot < count; slot++, cluster++) {
        const block = cluster * clusterBlocks
        memory.setUint32(slot * clusterBytes, markOf(block), true)
        submit(queue, Opcode.Write, slot, channel, slab, block, clusterBlocks, slot * clusterBytes)
      }
      queue.publish()
      let answered = 0
      await until("a part is written", () => {
        for (const { status } of queue.take()) {
          expect(status).toBe(0)
          answered++
        }
        return answered === count
      })
    }
  }
})
