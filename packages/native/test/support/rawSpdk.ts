/** SPDK through the bare addon: no Host, no RingQueue, so that a test may write what it likes into a ring. */
import { type Addon, type AddonEvent, EventKind, load, type StartOptions } from "@effect-spdk/native/Addon"
import { Control, Cqe, Sqe } from "@effect-spdk/native/Layout"
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, it } from "vitest"
import { libspdkMissing } from "../../../../test/src/support/libspdkMissing.ts"

/** Registers tests that need libspdk. Where pkg-config finds SPDK they must run, and an addon that does not load fails them. */
export const describeWithSpdk = (name: string, body: () => void): void => {
  const result = load()
  if (result._tag === "Loaded" || libspdkMissing === undefined) {
    describe(name, body)
  } else {
    describe(`${name} [skipped: ${result.reason}]`, () => {
      it.skip(`skipped: ${result.reason}`, () => {})
    })
  }
}

export interface Answer {
  readonly status: number
  readonly a: number
  readonly b: number
  readonly text: string
}

export const delay = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/** Waits for a condition and fails loudly when it does not come true in time, of which this process had all. */
export const until = async (
  what: string,
  condition: () => boolean | Promise<boolean>,
  millis = 20_000
): Promise<void> => {
  let left = millis
  for (let last = performance.now(); !(await condition());) {
    if (left <= 0) throw new Error(`not within ${millis} ms: ${what}`)
    await delay(1)
    const now = performance.now()
    left -= Math.min(100, now - last)
    last = now
  }
}

/** One call to SPDK's RPC server, over a connection of its own. */
export const call = (path: string, method: string, params?: object): Promise<unknown> =>
  new Promise((resolve, reject) => {
    let text = ""
    const socket = connect(path, () => socket.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })))
    socket.on("error", reject)
    socket.on("data", (data) => {
      text += String(data)
      let answer: { readonly result?: unknown; readonly error?: unknown }
      try {
        answer = JSON.parse(text) as typeof answer
      } catch {
        // The rest of it is on its way.
        return
      }
      socket.destroy()
      if (answer.error === undefined) resolve(answer.result)
      else reject(new Error(`${method}: ${JSON.stringify(answer.error)}`))
    })
  })

export class RawSpdk {
  readonly addon: Addon
  readonly directory = mkdtempSync(join(tmpdir(), "espdk-raw-"))
  readonly socket = join(this.directory, "rpc.sock")
  readonly events: Array<AddonEvent> = []
  private readonly waiting = new Map<number, (answer: Answer) => void>()
  private request = 0

  constructor() {
    const result = load()
    if (result._tag === "Missing") throw new Error(result.reason)
    this.addon = result.addon
    this.addon.attach(() => this.onWake())
    process.on("exit", () => rmSync(this.directory, { recursive: true, force: true }))
  }

  /** Makes a call that is answered by an event. Holds the event loop until then. */
  ask(call: (addon: Addon, request: number) => void): Promise<Answer> {
    const request = ++this.request
    this.addon.keepAlive(true)
    return new Promise((resolve) => {
      this.waiting.set(request, resolve)
      call(this.addon, request)
    })
  }

  /** The same, for what must succeed. */
  async get(call: (addon: Addon, request: number) => void): Promise<Answer> {
    const answer = await this.ask(call)
    if (answer.status !== 0) throw new Error(`status ${answer.status} ${answer.text}`)
    return answer
  }

  start(options: Partial<StartOptions> = {}): Promise<Answer> {
    const cores = `[${this.addon.cores().at(-1) ?? 0}]`
    const all: StartOptions = {
      name: "raw",
      cores,
      rpcSocket: this.socket,
      rpcDirectory: this.directory,
      rpcLink: "",
      logLevel: "error",
      pciAllowed: [],
      pciBlocked: [],
      memoryMiB: 512,
      hugepages: false,
      pci: false,
      adaptive: true,
      waitForRpc: false,
      key: "raw",
      ...options
    }
    return this.ask((addon, request) => addon.start(request, all))
  }

  /** The number of the last request. */
  get lastRequest(): number {
    return this.request
  }

  rpc(method: string, params?: object): Promise<unknown> {
    return call(this.socket, method, params)
  }

  async spawn(sqEntries: number, cqEntries: number, mask = ""): Promise<RawQueue> {
    const { a } = await this.get((addon, request) => addon.spawn(request, "raw", mask, sqEntries, cqEntries))
    const memory = this.addon.ring(a)
    if (memory === undefined) throw new Error("no ring")
    return new RawQueue(this, a, memory)
  }

  async open(name: string, write: boolean): Promise<number> {
    return (await this.get((addon, request) => addon.bdevOpen(request, name, write))).a
  }

  private onWake(): void {
    for (const event of this.addon.drain().events) {
      const resolve = event.kind === EventKind.Reply ? this.waiting.get(event.id) : undefined
      if (resolve === undefined) {
        this.events.push(event)
        continue
      }
      this.waiting.delete(event.id)
      resolve(event)
    }
    if (this.waiting.size === 0) this.addon.keepAlive(false)
  }
}

export interface RawCompletion {
  readonly id: number
  readonly generation: number
  readonly status: number
  readonly detail: number
  readonly nvme: number
  readonly kind: number
}

/** A ring with JavaScript's side in the hands of the test. */
export class RawQueue {
  readonly spdk: RawSpdk
  readonly id: number
  readonly words: Uint32Array
  readonly signed: Int32Array
  readonly sqEntries: number
  readonly cqEntries: number
  tail = 0
  private cqHead = 0

  constructor(spdk: RawSpdk, id: number, memory: ArrayBuffer) {
    this.spdk = spdk
    this.id = id
    this.words = new Uint32Array(memory)
    this.signed = new Int32Array(memory)
    this.sqEntries = this.words[Control.sqEntriesWord] ?? 0
    this.cqEntries = this.words[Control.cqEntriesWord] ?? 0
  }

  /** The first word of the slot at a position of the submission ring. */
  slot(position: number): number {
    return Control.words + (position & (this.sqEntries - 1)) * Sqe.words
  }

  write(words: ArrayLike<number>): void {
    this.words.set(words, this.slot(this.tail))
    this.tail = (this.tail + 1) >>> 0
  }

  publish(): void {
    Atomics.store(this.signed, Control.sqTailWord, this.tail | 0)
    Atomics.store(this.signed, Control.reactorSleepingWord, 0)
    this.spdk.addon.kick(this.id)
  }

  get consumed(): number {
    return Atomics.load(this.signed, Control.sqHeadWord) >>> 0
  }

  take(): Array<RawCompletion> {
    const taken: Array<RawCompletion> = []
    const base = Control.words + this.sqEntries * Sqe.words
    const tail = Atomics.load(this.signed, Control.cqTailWord) >>> 0
    for (; this.cqHead !== tail; this.cqHead = (this.cqHead + 1) >>> 0) {
      const at = base + (this.cqHead & (this.cqEntries - 1)) * Cqe.words
      const reason = this.words[at + Cqe.reasonWord] ?? 0
      taken.push({
        id: this.words[at + Cqe.idWord] ?? 0,
        generation: this.words[at + Cqe.idGenerationWord] ?? 0,
        status: this.signed[at + Cqe.statusWord] ?? 0,
        detail: reason & Cqe.detailMask,
        nvme: (reason >>> Cqe.nvmeShift) & Cqe.nvmeMask,
        kind: reason >>> Cqe.kindShift
      })
    }
    Atomics.store(this.signed, Control.cqHeadWord, this.cqHead | 0)
    return taken
  }

  exit(): Promise<Answer> {
    return this.spdk.get((addon, request) => addon.exit(request, this.id))
  }
}
