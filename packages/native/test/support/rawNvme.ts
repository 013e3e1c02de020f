/** NVMe controllers through the bare addon, and something to connect to. */
import { EventKind, type NvmeConnectOptions } from "@effect-spdk/native/Addon"
import { type EntryFields, slotsOfEntry, slotsOfSegments } from "./entry.ts"
import { Opcode } from "@effect-spdk/native/Layout"
import { type ChildProcess, spawn } from "node:child_process"
import { randomInt } from "node:crypto"
import { fileURLToPath } from "node:url"
import { type Answer, type RawCompletion, type RawQueue, type RawSpdk, until } from "./rawSpdk.ts"

export type NvmeAnswer = Answer & { readonly bytes?: Uint8Array }

export const subnqn = "nqn.2016-06.io.spdk:raw"
export const blockSize = 512

/** Outside of what the system gives out by itself. */
export const randomPort = (): number => randomInt(10_000, 32_000)

export const optionsFor = (port: number, changes: Partial<NvmeConnectOptions> = {}): NvmeConnectOptions => ({
  trtype: "TCP",
  adrfam: "IPv4",
  traddr: "127.0.0.1",
  trsvcid: `${port}`,
  subnqn,
  priority: 0,
  hostnqn: "nqn.2014-08.org.nvmexpress:uuid:5e7f0a52-26a5-4f0e-8d6c-5b5e7c1d8a11",
  hostId: new Uint8Array(16).fill(7),
  sourceAddress: "",
  sourcePort: "",
  ioQueues: 8,
  ioQueueSize: 128,
  adminQueueSize: 32,
  keepAliveMillis: 10_000,
  connectTimeoutMillis: 10_000,
  adminTimeoutMillis: 10_000,
  ioTimeoutMillis: 0,
  headerDigest: false,
  dataDigest: false,
  retries: 4,
  psk: "",
  dhchapKey: "",
  dhchapControllerKey: "",
  ...changes
})

/** Exports `bdevs` as namespaces 1, 2, …; each has a UUID of its own, because the bdev's is taken in this process. */
export const exportOf = async (
  rpc: (method: string, params?: object) => Promise<unknown>,
  port: number,
  bdevs: ReadonlyArray<string>
): Promise<void> => {
  await rpc("nvmf_create_transport", { trtype: "TCP", io_unit_size: 131_072 })
  await rpc("nvmf_create_subsystem", { nqn: subnqn, allow_any_host: true, max_namespaces: 8 })
  for (const bdev_name of bdevs) await addNamespace(rpc, bdev_name)
  const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: `${port}` }
  await rpc("nvmf_subsystem_add_listener", { nqn: subnqn, listen_address })
}

export const addNamespace = (
  rpc: (method: string, params?: object) => Promise<unknown>,
  bdev_name: string
): Promise<unknown> =>
  rpc("nvmf_subsystem_add_ns", { nqn: subnqn, namespace: { bdev_name, uuid: crypto.randomUUID() } })

export class RawNvme {
  readonly spdk: RawSpdk

  constructor(spdk: RawSpdk) {
    this.spdk = spdk
  }

  /** The number, known at once, and the answer. */
  begin(options: NvmeConnectOptions): { readonly id: number; readonly answer: Promise<NvmeAnswer> } {
    let id = 0
    const answer = this.spdk.ask((addon, request) => (id = addon.nvmeConnect(request, options)))
    return { id, answer }
  }

  async connect(options: NvmeConnectOptions): Promise<number> {
    const { answer, id } = this.begin(options)
    const { status, text } = await answer
    if (status !== 0) throw new Error(`connect: ${status} ${text}`)
    return id
  }

  call(controller: number, name: string): Promise<NvmeAnswer> {
    return this.spdk.ask((addon, request) => addon.nvmeCall(request, controller, name))
  }

  admin(
    controller: number,
    command: Uint8Array,
    data: readonly [slot: number, generation: number, offset: number, length: number] = [0, 0, 0, 0]
  ): Promise<NvmeAnswer> {
    return this.spdk.ask((addon, request) => addon.nvmeAdmin(request, controller, command, ...data))
  }

  async open(controller: number, nsid: number): Promise<NvmeAnswer> {
    return this.spdk.ask((addon, request) => addon.nvmeOpen(request, controller, nsid))
  }

  channel(queue: RawQueue, target: number): Promise<Answer> {
    return this.spdk.ask((addon, request) => addon.channelOpen(request, queue.id, target))
  }

  /** An open namespace with a channel. */
  async attach(queue: RawQueue, controller: number, nsid = 1) {
    const opened = await this.open(controller, nsid)
    if (opened.status !== 0) throw new Error(`open: ${opened.status}`)
    const channel = await this.channel(queue, opened.a)
    if (channel.status !== 0) throw new Error(`channel: ${channel.status}`)
    return {
      target: opened.a,
      channel: [channel.a, channel.b] as const,
      close: async () => {
        await this.spdk.get((addon, request) => addon.channelClose(request, queue.id, channel.a, channel.b))
        await this.spdk.get((addon, request) => addon.bdevClose(request, opened.a))
      }
    }
  }

  /** Of events of that kind that this controller, or target, has told of. */
  events(kind: number, id: number) {
    return this.spdk.events.filter((event) => event.kind === kind && event.id === id)
  }

  failed(controller: number): boolean {
    return this.events(EventKind.Nvme, controller).some(({ a }) => a === 1)
  }
}

/** 64 bytes of a command of which only these words are not zero. */
export const command = (opcode: number, words: Readonly<Record<number, number>> = {}): Uint8Array => {
  const dwords = new Uint32Array(16)
  dwords[0] = opcode
  for (const [at, value] of Object.entries(words)) dwords[Number(at)] = value
  return new Uint8Array(dwords.buffer)
}

/** Status type and code of the completion of a command. */
export const statusOf = (completion: Uint8Array | undefined): readonly [sct: number, sc: number] => {
  if (completion === undefined) throw new Error("no completion")
  const status = new DataView(completion.buffer, completion.byteOffset).getUint16(14, true)
  return [(status >> 9) & 7, (status >> 1) & 0xff]
}

export const submit = (queue: RawQueue, opcode: number, id: number, fields: EntryFields = {}): void => {
  for (const slot of slotsOfEntry(opcode, id, fields)) queue.write(slot)
}

export type Slab = readonly [slot: number, generation: number]

/** Reads or writes so many blocks at this block, from the start of the slab or `slabOffset`. */
export const transfer = (
  queue: RawQueue,
  opcode: typeof Opcode.Read | typeof Opcode.Write,
  id: number,
  channel: ArrayLike<number>,
  slab: Slab,
  at: { readonly block: number; readonly blocks: number; readonly slabOffset?: number }
): void =>
  submit(queue, opcode, id, {
    channel,
    slab,
    slabOffset: at.slabOffset ?? 0,
    offsetBlocks: at.block,
    lengthBlocks: at.blocks
  })

export const passthru = (
  queue: RawQueue,
  id: number,
  channel: ArrayLike<number>,
  segments: ReadonlyArray<readonly [slot: number, generation: number, offset: number, length: number]>
): void => {
  submit(queue, Opcode.NvmeIo, id, { channel, segments: segments.length })
  for (const slot of slotsOfSegments(segments)) queue.write(slot)
}

export const collect = async (
  queue: RawQueue,
  count: number,
  millis?: number
): Promise<ReadonlyArray<RawCompletion>> => {
  const seen: Array<RawCompletion> = []
  await until(
    `${count} completions`,
    () => {
      seen.push(...queue.take())
      return seen.length >= count
    },
    millis
  )
  return seen
}

/** A process of its own that exports a disk of memory, and one that answers after `delayMicros`. */
export class RawTarget {
  readonly port: number
  private child: ChildProcess | undefined

  constructor(port = randomPort()) {
    this.port = port
  }

  async start(delayMicros = 0): Promise<void> {
    const program = fileURLToPath(new URL("../children/nvmeTarget.mjs", import.meta.url))
    const child = spawn(process.execPath, [program, `${this.port}`, `${delayMicros}`], {
      stdio: ["pipe", "pipe", "inherit"],
      // Not preloaded sanitizers of the tests' own process: it is only something to talk to.
      env: {
        ...process.env,
        LD_PRELOAD: "",
        EFFECT_SPDK_ADDON: process.env["EFFECT_SPDK_TARGET_ADDON"] ?? process.env["EFFECT_SPDK_ADDON"]
      }
    })
    this.child = child
    let said = ""
    child.stdout?.on("data", (text) => (said += String(text)))
    await until("the target listens", () => {
      if (child.exitCode !== null) throw new Error(`the target ended: ${said}`)
      return said.includes("ready")
    })
  }

  /** Its first namespace comes or goes, after a while. */
  change(word: "add" | "remove"): void {
    this.child?.stdin?.write(`${word}\n`)
  }

  /** It says nothing from here on, and its connections stay. */
  stop(): void {
    this.child?.kill("SIGSTOP")
  }

  resume(): void {
    this.child?.kill("SIGCONT")
  }

  /** As a crash does: nobody is told. */
  async kill(): Promise<void> {
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await ended
  }
}
