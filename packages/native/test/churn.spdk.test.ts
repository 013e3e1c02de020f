/** Everything at once, in random order: devices come and go under requests, channels and queues that come and go. */
import * as Host from "@effect-spdk/native/Host"
import { Opcode } from "@effect-spdk/native/Layout"
import { type Entry, makeEntry, type RequestId } from "@effect-spdk/native/Queue"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { Random } from "./support/random.ts"
import { call, describeWithSpdk, until } from "./support/rawSpdk.ts"

const long = process.env["EFFECT_SPDK_LONG"] === "1"
const blockSize = 512
const numBlocks = 512

const directory = mkdtempSync(join(tmpdir(), "espdk-churn-"))
const socket = join(directory, "rpc.sock")
process.on("exit", () => rmSync(directory, { recursive: true, force: true }))

const promise = <A>(register: (resolve: (value: A) => void) => void): Promise<A> => new Promise(register)

describeWithSpdk("SPDK under churn", () => {
  let host: Host.Host

  beforeAll(async () => {
    const found = Host.get()
    if (found._tag === "Missing") throw new Error(found.reason)
    host = found.host
    const started = await promise<Host.Reply>((resolve) =>
      host.start(
        {
          name: "churn",
          cores: `[${host.addon.cores().slice(-2).join(",")}]`,
          rpcSocket: socket,
          rpcDirectory: directory,
          rpcLink: "",
          logLevel: "disabled",
          pciAllowed: [],
          pciBlocked: [],
          memoryMiB: 768,
          hugepages: false,
          pci: false,
          adaptive: true,
          waitForRpc: false,
          key: "churn"
        },
        resolve
      )
    )
    expect(started).toMatchObject({ status: 0 })
  }, 60_000)

  const spawn = async (name: string): Promise<Host.HostQueue> => {
    const queue = await promise<Host.HostQueue | undefined>((resolve) =>
      host.spawn(name, "", (_, spawned) => resolve(spawned))
    )
    if (queue === undefined) throw new Error("no queue")
    return queue
  }
  const exit = (queue: Host.HostQueue) => promise<Host.Reply>((resolve) => host.exit(queue, resolve))

  /** The second removal of a device is refused. */
  const remove = (name: string) => call(socket, "bdev_malloc_delete", { name }).catch(() => undefined)

  /** One device, several queues, and random calls that overlap until all of them are through. */
  const round = async (random: Random, name: string): Promise<void> => {
    const stacked = random.chance(0.5)
    await call(socket, "bdev_malloc_create", { name, num_blocks: numBlocks, block_size: blockSize })
    if (stacked) {
      const micros = random.pick([0, 50, 2000])
      await call(socket, "bdev_delay_create", {
        base_bdev_name: name,
        name: `${name}_slow`,
        avg_read_latency: micros,
        p99_read_latency: micros,
        avg_write_latency: micros,
        p99_write_latency: micros
      })
    }
    const opened = stacked ? `${name}_slow` : name
    const slab = host.addon.dmaAllocateNow(blockSize * 64, 4096)
    if (typeof slab === "number") throw new Error(`no memory: ${slab}`)
    const view = host.addon.dmaView(...slab)
    const queues = [await spawn("one"), await spawn("two")]
    let removed = 0
    const descriptors: Array<number> = []
    for (let i = 0; i < 2; i++) {
      const reply = await promise<Host.Reply>((resolve) => host.bdevOpen(opened, true, () => removed++, resolve))
      expect(reply).toMatchObject({ status: 0 })
      descriptors.push(reply.a)
    }

    let submitted = 0
    const completed: Array<number> = []
    const ids: Array<readonly [Host.HostQueue, RequestId]> = []
    const completion = { complete: (index: number) => void (completed[index] = (completed[index] ?? 0) + 1) }
    const entry: Entry = { ...makeEntry(), slabSlot: slab[0], slabGeneration: slab[1] }
    const channels: Array<{ readonly queue: Host.HostQueue; readonly slot: number; readonly generation: number }> = []
    const pending: Array<Promise<unknown>> = []
    const exited = new Set<Host.HostQueue>()

    const actions: ReadonlyArray<readonly [weight: number, action: () => void]> = [
      [
        20,
        () => {
          const queue = random.pick(queues)
          pending.push(
            promise<Host.Reply>((resolve) => host.channelOpen(queue, random.pick(descriptors), resolve)).then(
              (reply) => {
                if (reply.status === 0) channels.push({ queue, slot: reply.a, generation: reply.b })
              }
            )
          )
        }
      ],
      [
        60,
        () => {
          if (channels.length === 0) return
          const channel = random.pick(channels)
          entry.opcode = random.pick([
            Opcode.Read,
            Opcode.Write,
            Opcode.Flush,
            Opcode.Unmap,
            Opcode.Reset,
            Opcode.Nop,
            Opcode.Timer
          ])
          entry.channelSlot = channel.slot
          entry.channelGeneration = channel.generation
          entry.lengthBlocks = 1 + random.below(64)
          entry.offsetBlocks = random.below(numBlocks - 64)
          for (let burst = random.below(random.chance(0.05) ? 3000 : 20); burst > 0; burst--) {
            ids.push([channel.queue, channel.queue.ring.submit(entry, completion, submitted++)])
          }
        }
      ],
      [
        10,
        () => {
          if (ids.length === 0) return
          const [queue, id] = random.pick(ids)
          queue.ring.abort(id)
        }
      ],
      [
        6,
        () => {
          if (channels.length === 0) return
          const { generation, queue, slot } = random.pick(channels)
          pending.push(promise<Host.Reply>((resolve) => host.channelClose(queue, slot, generation, resolve)))
        }
      ],
      [1, () => void pending.push(promise<Host.Reply>((resolve) => host.bdevClose(random.pick(descriptors), resolve)))],
      [1, () => void pending.push(remove(name))],
      [
        1,
        () => {
          const queue = random.pick(queues)
          exited.add(queue)
          pending.push(exit(queue))
        }
      ]
    ]
    const weights = actions.reduce((sum, [weight]) => sum + weight, 0)
    for (let step = 30 + random.below(200); step > 0; step--) {
      let at = random.below(weights)
      for (const [weight, action] of actions) {
        at -= weight
        if (at >= 0) continue
        action()
        break
      }
      if (random.chance(0.3)) await promise((resolve) => setImmediate(() => resolve(undefined)))
    }

    for (const queue of queues) if (!exited.has(queue)) pending.push(exit(queue))
    for (const descriptor of descriptors)
      pending.push(promise<Host.Reply>((resolve) => host.bdevClose(descriptor, resolve)))
    pending.push(remove(name))
    await Promise.all(pending)
    await until("every request has completed", () => host.requestsInFlight === 0)
    expect(completed.length).toBe(submitted)
    expect(completed.every((times) => times === 1)).toBe(true)
    if (view !== undefined) host.addon.dmaFree(...slab, view)
    const held = {
      threads: 0,
      descriptors: 0,
      channels: 0,
      pollers: 0,
      blobstores: 0,
      blobs: 0,
      nvmeControllers: 0,
      slabs: 0,
      dmaBytes: 0
    }
    await until("nothing is held", () => JSON.stringify(host.usage()) === JSON.stringify(held))
    await until(
      "the device is gone",
      async () => ((await call(socket, "bdev_get_bdevs")) as ReadonlyArray<unknown>).length === 0
    )
  }

  for (const scheduler of ["static", "dynamic"]) {
    it(
      `the ${scheduler} scheduler: every request completes once, every call is answered, nothing is left`,
      async () => {
        await call(socket, "framework_set_scheduler", {
          name: scheduler,
          ...(scheduler === "dynamic" ? { period: 10_000 } : {})
        })
        const random = new Random()
        for (let i = 0; i < (long ? 1500 : 25); i++) {
          try {
            await round(random, `${scheduler}_${i}`)
          } catch (error) {
            throw new Error(`EFFECT_SPDK_SEED=${random.seed}, round ${i}`, { cause: error })
          }
        }
      },
      long ? 1_800_000 : 60_000
    )
  }

  afterAll(() => expect(host.requestsInFlight).toBe(0))
})
