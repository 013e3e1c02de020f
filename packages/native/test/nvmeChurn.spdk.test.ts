/** Everything that can happen to NVMe controllers, at once and in random order: what is asked is answered once, and nothing stays. */
import { Detail, Opcode } from "@effect-spdk/native/Layout"
import { afterAll, beforeAll, expect, it } from "vitest"
import { Random } from "./support/random.ts"
import * as raw from "./support/rawNvme.ts"
import { delay, describeWithSpdk, type RawQueue, RawSpdk, until } from "./support/rawSpdk.ts"

const { command, optionsFor, submit, transfer } = raw

const steps = process.env["EFFECT_SPDK_LONG"] === "1" ? 20_000 : 600
const mostInFlight = 256
const mostControllers = 4
const slabBytes = 2 ** 20
const adminTimeoutMillis = 3000

interface LiveQueue {
  readonly queue: RawQueue
  readonly pending: Set<number>
  nextId: number
  ended: boolean
}

interface Channel {
  readonly queue: LiveQueue
  readonly target: number
  readonly handle: readonly [number, number]
}

interface Controller {
  readonly id: number
  readonly channels: Array<Channel>
}

class Churn {
  readonly spdk: RawSpdk
  readonly nvme: raw.RawNvme
  readonly target: raw.RawTarget
  readonly random = new Random()
  readonly slab: raw.Slab
  readonly controllers: Array<Controller> = []
  readonly tasks = new Set<Promise<void>>()
  readonly wrong: Array<string> = []
  queues: Array<LiveQueue> = []
  completions = 0
  failures = 0
  private targetBusy = false

  constructor(spdk: RawSpdk, target: raw.RawTarget, slab: raw.Slab) {
    this.spdk = spdk
    this.nvme = new raw.RawNvme(spdk)
    this.target = target
    this.slab = slab
  }

  /** Goes on by itself; what it throws is wrong. */
  task(name: string, work: () => Promise<void>): void {
    const running: Promise<void> = work()
      .catch((error: unknown) => void this.wrong.push(`${name}: ${String(error)}`))
      .finally(() => this.tasks.delete(running))
    this.tasks.add(running)
  }

  collect(live: LiveQueue): void {
    for (const { detail, id, nvme, status } of live.queue.take()) {
      this.completions++
      if (status !== 0 || nvme !== 0) this.failures++
      if (!live.pending.delete(id)) this.wrong.push(`${id} was answered without being asked`)
      // Everything asked for here is in order.
      if (status === -22 || detail === Detail.BlockRange) this.wrong.push(`${id}: status ${status} detail ${detail}`)
    }
  }

  async spawn(): Promise<void> {
    const queue = await this.spdk.spawn(1024, 4096)
    this.queues.push({ queue, pending: new Set(), nextId: 0, ended: false })
  }

  async exit(live: LiveQueue): Promise<void> {
    live.ended = true
    this.queues = this.queues.filter((other) => other !== live)
    await live.queue.exit()
    this.collect(live)
    if (live.pending.size !== 0) this.wrong.push(`a queue ended and owes ${live.pending.size} answers`)
  }

  connect(): void {
    if (this.controllers.length >= mostControllers) return
    const options = optionsFor(this.target.port, {
      adminTimeoutMillis,
      connectTimeoutMillis: 3000,
      keepAliveMillis: this.random.pick([0, 1000]),
      ioQueueSize: this.random.pick([8, 32, 128]),
      headerDigest: this.random.chance(0.3),
      dataDigest: this.random.chance(0.3)
    })
    const { answer, id } = this.nvme.begin(options)
    const controller: Controller = { id, channels: [] }
    this.controllers.push(controller)
    if (this.random.chance(0.2)) this.task("give up", async () => void (await this.nvme.call(id, "giveUp")))
    this.task("connect", async () => {
      const { status } = await answer
      if (status !== 0) this.forget(controller)
    })
  }

  forget(controller: Controller): boolean {
    const at = this.controllers.indexOf(controller)
    if (at >= 0) this.controllers.splice(at, 1)
    return at >= 0
  }

  attach(controller: Controller): void {
    const live = this.random.pick(this.queues)
    const nsid = this.random.pick([1, 2])
    this.task("attach", async () => {
      const opened = await this.nvme.open(controller.id, nsid)
      if (opened.status !== 0) return
      const channel = await this.nvme.channel(live.queue, opened.a)
      if (channel.status === 0 && !live.ended && this.controllers.includes(controller)) {
        controller.channels.push({ queue: live, target: opened.a, handle: [channel.a, channel.b] })
        return
      }
      await this.close({ queue: live, target: opened.a, handle: [channel.a, channel.b] }, channel.status === 0)
    })
  }

  async close({ handle, queue, target }: Channel, opened = true): Promise<void> {
    // A queue that has ended has closed its channels.
    if (opened && !queue.ended) {
      await this.spdk.ask((addon, request) => addon.channelClose(request, queue.queue.id, ...handle))
    }
    await this.spdk.ask((addon, request) => addon.bdevClose(request, target))
  }

  io({ handle, queue: live }: Channel): void {
    if (live.ended) return
    const count = this.random.below(32)
    for (let i = 0; i < count && live.pending.size < mostInFlight; i++) {
      const id = live.nextId++
      live.pending.add(id)
      const blocks = this.random.pick([1, 8, 64, 512])
      const at = { block: this.random.below(2048 - blocks), blocks, slabOffset: 4096 }
      const kind = this.random.below(10)
      if (kind === 0) submit(live.queue, Opcode.Flush, id, { channel: handle, lengthBlocks: 1 })
      else if (kind === 1) {
        submit(live.queue, Opcode.WriteZeroes, id, { channel: handle, offsetBlocks: at.block, lengthBlocks: blocks })
      } else transfer(live.queue, kind < 6 ? Opcode.Read : Opcode.Write, id, handle, this.slab, at)
      if (this.random.chance(0.1)) this.abort(live, id)
    }
    live.queue.publish()
  }

  abort(live: LiveQueue, target: number): void {
    const id = live.nextId++
    live.pending.add(id)
    submit(live.queue, Opcode.Abort, id, { target })
  }

  admin(controller: Controller): void {
    const wanted = this.random.chance(0.8)
    this.task("admin", async () => {
      const answer = this.nvme.admin(controller.id, command(0x06, { 10: 1 }), [...this.slab, 0, 4096])
      // By the number of the request, which is the last that was given out.
      if (!wanted) this.spdk.addon.nvmeAbort(controller.id, this.spdk.lastRequest)
      await answer
    })
  }

  disconnect(controller: Controller): void {
    if (!this.forget(controller)) return
    const { channels } = controller
    const first = this.random.chance(0.5)
    this.task("disconnect", async () => {
      const closes = () => Promise.all(channels.map((channel) => this.close(channel)))
      if (first) await closes()
      await this.nvme.call(controller.id, "disconnect")
      if (!first) await closes()
    })
  }

  /** One at a time. */
  harm(): void {
    if (this.targetBusy) return
    this.targetBusy = true
    this.task("harm", async () => {
      if (this.random.chance(0.5)) {
        await this.target.kill()
        await this.target.start(2000)
      } else {
        this.target.stop()
        await delay(this.random.pick([5, 50, adminTimeoutMillis + 500]))
        this.target.resume()
      }
      this.targetBusy = false
    })
  }

  step(): void {
    const controller = this.controllers.length === 0 ? undefined : this.random.pick(this.controllers)
    const kind = this.random.below(1000)
    if (controller === undefined || kind < 60) return this.connect()
    if (kind < 200) return this.attach(controller)
    const channel = controller.channels.length === 0 ? undefined : this.random.pick(controller.channels)
    if (kind < 800) return channel === undefined ? this.attach(controller) : this.io(channel)
    if (kind < 860) return this.admin(controller)
    if (kind < 890) return this.disconnect(controller)
    if (kind < 920) return this.task("reset", async () => void (await this.nvme.call(controller.id, "reset")))
    if (kind < 960) {
      const [taken] = controller.channels.splice(this.random.below(controller.channels.length), 1)
      return taken === undefined ? undefined : this.task("close", () => this.close(taken))
    }
    if (kind < 980) return this.target.change(this.random.pick(["add", "remove"]))
    if (kind < 995) return this.task("queue", () => this.exit(this.random.pick(this.queues)).then(() => this.spawn()))
    return this.harm()
  }

  async end(): Promise<void> {
    for (const controller of [...this.controllers]) this.disconnect(controller)
    await until("all that was begun has ended", () => this.tasks.size === 0 && this.collectAll(), 60_000)
    for (const live of [...this.queues]) await this.exit(live)
  }

  collectAll(): true {
    for (const live of this.queues) this.collect(live)
    return true
  }
}

describeWithSpdk("NVMe controllers under churn", () => {
  const target = new raw.RawTarget()
  let spdk: RawSpdk
  let slab: raw.Slab

  beforeAll(async () => {
    await target.start(2000)
    spdk = new RawSpdk()
    const cores = `[${spdk.addon.cores().slice(-2).join(",")}]`
    expect(await spdk.start({ cores, logLevel: "disabled" })).toMatchObject({ status: 0 })
    const allocated = spdk.addon.dmaAllocateNow(slabBytes, 4096)
    if (typeof allocated === "number") throw new Error(`no memory: ${allocated}`)
    slab = allocated
  }, 60_000)

  afterAll(async () => {
    target.resume()
    await target.kill()
  })

  it(`${steps} random steps, and everything is answered`, async () => {
    const before = spdk.addon.usage()
    const churn = new Churn(spdk, target, slab)
    await churn.spawn()
    await churn.spawn()
    for (let at = 0; at < steps; at++) {
      if (churn.queues.length > 0) churn.step()
      churn.collectAll()
      await delay(churn.random.pick([0, 1, 5, 20]))
    }
    const seed = `seed ${churn.random.seed}`
    await churn.end().catch((error: unknown) => churn.wrong.push(String(error)))
    expect(churn.wrong, seed).toEqual([])
    expect(churn.completions, seed).toBeGreaterThan(0)
    await until(
      `nothing is left (${seed}: ${JSON.stringify(spdk.addon.usage())})`,
      () => spdk.addon.usage().nvmeControllers === 0
    )
    expect(spdk.addon.usage(), seed).toMatchObject({ ...before })
    if (process.env["EFFECT_SPDK_LONG"] === "1") {
      console.log(`${churn.completions} completions, ${churn.failures} of them failures, ${seed}`)
    }
  })
})
