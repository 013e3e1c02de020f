/** What becomes of NVMe I/O when the other side, or this one, goes away in the middle of it. */
import { Opcode } from "@effect-spdk/native/Layout"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { afterAll, afterEach, beforeAll, expect, it } from "vitest"
import * as raw from "./support/rawNvme.ts"
import { describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const { collect, command, optionsFor, submit, transfer } = raw

const eio = -5
const enotconn = -107
const hourMicros = 3_600_000_000

describeWithSpdk("an NVMe controller of another process", () => {
  let spdk: RawSpdk
  let nvme: raw.RawNvme
  let slab: raw.Slab
  let bytes: Uint8Array
  const target = new raw.RawTarget()
  const queues: Array<RawQueue> = []
  const connected = new Set<number>()

  beforeAll(async () => {
    await target.start(hourMicros)
    spdk = new RawSpdk()
    nvme = new raw.RawNvme(spdk)
    expect(await spdk.start()).toMatchObject({ status: 0 })
    const allocated = spdk.addon.dmaAllocateNow(2 ** 20, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
    bytes = new Uint8Array(spdk.addon.dmaView(...slab) ?? new ArrayBuffer(0))
  }, 60_000)

  afterEach(async () => {
    for (const queue of queues.splice(0)) await queue.exit()
    for (const controller of connected) await nvme.call(controller, "disconnect")
    connected.clear()
  })

  afterAll(async () => {
    spdk.addon.dmaFree(...slab, bytes.buffer)
    await target.kill()
  })

  const connect = async (): Promise<number> => {
    const controller = await nvme.connect(optionsFor(target.port, { connectTimeoutMillis: 5000 }))
    connected.add(controller)
    return controller
  }

  const spawnQueue = async (): Promise<RawQueue> => {
    const queue = await spdk.spawn(1024, 4096)
    queues.push(queue)
    return queue
  }

  const one = async (queue: RawQueue) => {
    queue.publish()
    return (await collect(queue, 1))[0]
  }

  it("deallocates", async () => {
    const queue = await spawnQueue()
    const { channel, close } = await nvme.attach(queue, await connect())
    bytes.fill(0xa5, 0, 8192)
    transfer(queue, Opcode.Write, 1, channel, slab, { block: 0, blocks: 16 })
    await one(queue)
    submit(queue, Opcode.Unmap, 2, { channel, offsetBlocks: 1, lengthBlocks: 2 })
    expect(await one(queue)).toMatchObject({ id: 2, status: 0 })
    // Dataset management by itself: block 5. SPDK's target takes one range of a command, and says so by DMRL.
    const at = 65_536
    bytes.set(command(0x09, { 1: 1, 10: 0, 11: 4 }), at)
    const range = new DataView(bytes.buffer, at + 4096, 16)
    range.setUint32(4, 1, true)
    range.setBigUint64(8, 5n, true)
    raw.passthru(queue, 3, channel, [
      [...slab, at, 64],
      [...slab, at + 4096, 16]
    ])
    expect(await one(queue)).toMatchObject({ id: 3, status: 0 })
    expect(raw.statusOf(bytes.subarray(at, at + 16))).toEqual([0, 0])
    transfer(queue, Opcode.Read, 4, channel, slab, { block: 0, blocks: 16 })
    expect(await one(queue)).toMatchObject({ id: 4, status: 0 })
    const zeroed = Array.from({ length: 16 }, (_, block) => bytes[block * 512] === 0)
    expect(zeroed.flatMap((zero, block) => (zero ? [block] : []))).toEqual([1, 2, 5])
    // All of it: as many commands as the limits of the controller make of that.
    submit(queue, Opcode.Unmap, 5, { channel, lengthBlocks: 65_536 })
    expect(await one(queue)).toMatchObject({ id: 5, status: 0 })
    transfer(queue, Opcode.Read, 6, channel, slab, { block: 0, blocks: 16 })
    await one(queue)
    expect(bytes.subarray(0, 8192).every((byte) => byte === 0)).toBe(true)
    await close()
  })

  it("a target that is killed answers nobody, and everybody is answered; a reset finds the next one", async () => {
    const queue = await spawnQueue()
    const controller = await connect()
    const slow = await nvme.attach(queue, controller, 2)
    const fast = await nvme.attach(queue, controller, 1)
    const idle = await connect()
    for (let id = 0; id < 64; id++) transfer(queue, Opcode.Read, id, slow.channel, slab, { block: id, blocks: 8 })
    queue.publish()
    await until("it took them", () => queue.consumed === queue.tail)
    await target.kill()
    const seen = await collect(queue, 64)
    expect(seen.map(({ status }) => status)).toEqual(Array.from({ length: 64 }, () => eio))
    expect(new Set(seen.map(({ id }) => id)).size).toBe(64)
    await until("both know it", () => nvme.failed(controller) && nvme.failed(idle))
    // From here on nothing is tried.
    transfer(queue, Opcode.Read, 100, fast.channel, slab, { block: 0, blocks: 1 })
    expect(await one(queue)).toMatchObject({ id: 100, status: enotconn })
    expect(await nvme.admin(controller, command(0x06, { 10: 1 }), [...slab, 0, 4096])).toMatchObject({
      status: enotconn
    })
    expect(await nvme.open(controller, 1)).toMatchObject({ status: enotconn })
    expect(await nvme.call(controller, "reset")).toMatchObject({ status: enotconn, text: expect.stringMatching(/./) })

    await target.start(hourMicros)
    expect(await nvme.call(controller, "reset")).toMatchObject({ status: 0 })
    transfer(queue, Opcode.Read, 101, fast.channel, slab, { block: 0, blocks: 1 })
    expect(await one(queue)).toMatchObject({ id: 101, status: 0 })
    expect(await nvme.admin(controller, command(0x06, { 10: 1 }), [...slab, 0, 4096])).toMatchObject({ status: 0 })
    // The other one was not reset, and ends as it is.
    await nvme.call(idle, "disconnect")
    connected.delete(idle)
    await slow.close()
    await fast.close()
  }, 90_000)

  it("an abort that is never answered keeps nothing from its end", async () => {
    for (const end of ["disconnect", "exit"] as const) {
      const queue = await spawnQueue()
      // Nothing here runs out of time: neither the admin queue, nor what keeps it alive.
      const options = optionsFor(target.port, { adminTimeoutMillis: 0, keepAliveMillis: 0 })
      const controller = await nvme.connect(options)
      const { channel } = await nvme.attach(queue, controller, 2)
      for (let id = 0; id < 8; id++) transfer(queue, Opcode.Read, id, channel, slab, { block: id, blocks: 8 })
      queue.publish()
      await until("it took them", () => queue.consumed === queue.tail)
      target.stop()
      for (let id = 0; id < 8; id++) {
        submit(queue, Opcode.Abort, 100 + id, { target: id })
      }
      queue.publish()
      // Heard; what they are to abort is with a target that says nothing.
      const heard = await collect(queue, 8)
      expect(heard.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 0))
      if (end === "exit") {
        // As a worker that ends does: everything at once.
        const gone = [queue.exit(), nvme.call(controller, "disconnect")]
        queues.splice(queues.indexOf(queue), 1)
        await Promise.all(gone)
      } else {
        await nvme.call(controller, "disconnect")
        const seen = await collect(queue, 8)
        expect(seen.map(({ id }) => id).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
      }
      target.resume()
    }
  }, 60_000)

  it("nobody there says so", async () => {
    const nobody = await nvme.begin(optionsFor(1)).answer
    expect(nobody).toMatchObject({ status: eio, text: expect.stringContaining("111") })
  })

  it("a process that exits in the middle of its I/O ends in time", async () => {
    const program = fileURLToPath(new URL("./children/nvmeExit.mjs", import.meta.url))
    const child = spawn(process.execPath, [program, `${target.port}`], { stdio: ["ignore", "pipe", "inherit"] })
    let said = ""
    child.stdout.on("data", (text) => (said += String(text)))
    const ended = await new Promise((resolve) => child.once("close", (code, signal) => resolve([code, signal])))
    expect(ended).toEqual([7, null])
    expect(said).toMatch(/in flight 64/)
    const idle = await connect()
    expect((await nvme.call(idle, "namespaces")).text).toBe("[1,2]")
  })
})
