/** Changed PDUs of all kinds against the embedded host: no crash, no hang, memory flat, each command answered exactly once. */
import { assert, describe, it } from "@effect/vitest"
import * as net from "node:net"
import { QueuePair } from "../src/internal/embedded/nvme/queuePair.ts"
import type { HostCommand } from "../src/internal/embedded/nvme/hostCommand.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import { crc32c, setU32, setU64Number, getU16, getU32 } from "../src/internal/nvme/wire/bytes.ts"
import { IoOpcode, Sqe, writeCqe } from "../src/internal/nvme/wire/command.ts"
import {
  encodeIcResp,
  encodeTermReq,
  PduFault,
  PduFlag,
  PduFormat,
  PduType,
  plainFormat,
  shortHeaderBytes,
  writeCapsuleResp,
  writeDataHeader,
  writeR2t
} from "../src/internal/nvme/wire/pdu.ts"
import { change, formats, fuzz, seed, wantedPdus, Wire } from "./support/pduFuzz.ts"
import { makeRandom, type RandomSource } from "./support/random.ts"
import { deadlineIn } from "./support/deadline.ts"

const lanes = 8
const depth = 32
/** Commands on their way besides the one that the fences are for. */
const busy = 12
/** A write of this length is asked for piece by piece: an R2T behind changed PDUs is answered when they have been taken. */
const fenceBytes = 256 * 1024
const pieceBytes = 512
const inCapsuleBytes = 4096
/** Around the data of each command, and not to be touched. */
const guardBytes = 64
const guard = 0xa5
const dataBytes = 8192

/** A command that the host has sent, as its peer sees it. */
interface Sent {
  readonly commandId: number
  readonly opcode: number
  readonly lengthBytes: number
  /** Data that has been sent or asked for, as if nothing had been changed. */
  doneBytes: number
}

const formatOf = (icResp: Uint8Array): PduFormat =>
  new PduFormat({
    headerDigest: ((icResp[11] ?? 0) & 1) !== 0,
    dataDigest: ((icResp[11] ?? 0) & 2) !== 0,
    alignment: Math.min(icResp[10] ?? 0, 31)
  })

/** The controller's side of one connection: says what a controller says, changed. */
class Liar {
  readonly wire: Wire
  readonly format: PduFormat
  private readonly random: RandomSource
  private readonly sent = new Map<number, Sent>()
  private fence: Sent | undefined = undefined
  private asked = -1
  private answered = -1

  constructor(wire: Wire, format: PduFormat, random: RandomSource) {
    this.wire = wire
    this.format = format
    this.random = random
    wire.onPdu = (pdu) => this.heard(pdu)
  }

  private heard(pdu: Uint8Array): void {
    if (pdu[0] === PduType.IcReq) return this.initialize()
    if (pdu[0] === PduType.H2cData) {
      if (getU16(pdu, 8) === this.fence?.commandId && getU32(pdu, 12) === this.asked) this.answered = this.asked
      return
    }
    if (pdu[0] !== PduType.CapsuleCmd) return
    const commandId = getU16(pdu, 8 + Sqe.commandId)
    const one = { commandId, opcode: pdu[8] ?? 0, lengthBytes: getU32(pdu, 8 + Sqe.sgl + 8), doneBytes: 0 }
    if (one.lengthBytes === fenceBytes) this.fence = one
    else this.sent.set(commandId, one)
  }

  /** Now and then changed as well. */
  private initialize(): void {
    const { dataDigest, headerDigest } = this.format
    const response = encodeIcResp({ version: 0, alignment: 0, headerDigest, dataDigest, maxH2cData: 131_072 })
    if (this.random.chance(0.03)) change(this.random, response, plainFormat)
    this.wire.send(response)
    // What it came to say, if the host takes it.
    this.wire.format = formatOf(response)
  }

  /** Until the host has had enough, or a while. */
  async run(): Promise<number> {
    const { random, wire } = this
    if (!(await wire.until("the host's commands", true, () => this.fence !== undefined))) return 1
    let counted = 0
    for (let turn = 0; turn < 64 && this.sent.size > 0; turn++) {
      const pdus = Array.from({ length: random.pick([1, 2, 4]) }, () =>
        random.chance(0.1) ? this.answer() : change(random, this.answer(), this.format)
      )
      this.asked = turn * pieceBytes
      const r2t = this.r2t(this.fence?.commandId ?? 0, this.asked, pieceBytes)
      wire.send(...pdus, r2t)
      const isAlive = await wire.until("the data that was asked for", true, () => this.answered === this.asked)
      counted += isAlive ? pdus.length : Math.min(pdus.length, wire.countedOf([...pdus, r2t]))
      if (!isAlive) break
    }
    return counted
  }

  /** What a controller may say to one of the commands. */
  private answer(): Uint8Array {
    const { random } = this
    if (random.chance(0.005)) return encodeTermReq(PduType.C2hTermReq, new PduFault(1 + random.below(6), 8, ""))
    const list = [...this.sent.values()]
    if (list.length === 0) return this.response(random.below(depth))
    const one = random.pick(list)
    const leftBytes = one.lengthBytes - one.doneBytes
    const isAskedFor = one.opcode === IoOpcode.Write && one.lengthBytes > inCapsuleBytes
    if (leftBytes > 0 && random.chance(0.8)) {
      const offsetBytes = one.doneBytes
      const lengthBytes = random.chance(0.7) ? leftBytes : Math.min(leftBytes, 512)
      if (one.opcode === IoOpcode.Read) return this.c2hData(one, lengthBytes)
      one.doneBytes += lengthBytes
      if (isAskedFor) return this.r2t(one.commandId, offsetBytes, lengthBytes)
    }
    this.sent.delete(one.commandId)
    return this.response(one.commandId)
  }

  private response(commandId: number): Uint8Array {
    const bytes = new Uint8Array(shortHeaderBytes + 4)
    const status = this.random.chance(0.8) ? 0 : this.random.below(0x8000)
    writeCqe(bytes, 8, { commandId, status, dword0: 0, dword1: 0, sqHead: 0 })
    return bytes.subarray(0, writeCapsuleResp(bytes, 0, this.format))
  }

  private r2t(commandId: number, offsetBytes: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(shortHeaderBytes + 4)
    const transfer = { commandId, transferTag: 7, offsetBytes, lengthBytes }
    return bytes.subarray(0, writeR2t(bytes, 0, this.format, transfer))
  }

  private c2hData(one: Sent, lengthBytes: number): Uint8Array {
    const { format, random } = this
    const { commandId, doneBytes: offsetBytes } = one
    one.doneBytes += lengthBytes
    const isLast = one.doneBytes === one.lengthBytes
    const isSuccess = isLast && random.chance(0.5)
    if (isSuccess) this.sent.delete(commandId)
    const bytes = new Uint8Array(shortHeaderBytes + 8 + lengthBytes).fill(random.below(256))
    const flags = (isLast ? PduFlag.Last : 0) | (isSuccess ? PduFlag.Success : 0)
    const transfer = { commandId, transferTag: 0, offsetBytes, lengthBytes }
    const at = writeDataHeader(bytes, 0, format, { type: PduType.C2hData, flags, transfer })
    if (format.dataDigest) setU32(bytes, at + lengthBytes, crc32c(bytes, at, at + lengthBytes))
    return bytes.subarray(0, getU32(bytes, 4))
  }
}

/** A queue pair that is connected again and again, and the commands on it. */
class Lane {
  private readonly random: RandomSource
  private readonly server = net.createServer((socket) => this.onConnection(socket))
  private readonly queue: QueuePair
  private readonly free: Array<Uint8Array> = []
  private readonly fenceData = new Uint8Array(fenceBytes)
  private onConnection: (socket: net.Socket) => void = (socket) => void socket.destroy()
  private isUp = false
  private submitted = 0
  private completed = 0

  constructor(reactor: EmbeddedReactor, random: RandomSource) {
    this.random = random
    const owner = { queueFailed: () => (this.isUp = false) }
    this.queue = new QueuePair({ id: 1, depth, retries: 1, reactor, owner })
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    return this
  }

  close(): void {
    this.server.close()
  }

  async session(): Promise<number> {
    const format = this.random.pick(formats)
    const accepted = new Promise<Liar>((resolve) => {
      this.onConnection = (socket) => resolve(new Liar(new Wire(socket, "controller"), format, this.random))
    })
    this.isUp = true
    this.open(format)
    const liar = await accepted
    const counted = await liar.run()
    liar.wire.close()
    await this.ends()
    return counted
  }

  private open({ dataDigest, headerDigest }: PduFormat): void {
    const listening = this.server.address()
    const port = typeof listening === "object" && listening !== null ? listening.port : 0
    const address = { host: "127.0.0.1", port, family: 4, localAddress: "", localPort: 0 } as const
    this.queue.open({ address, headerDigest, dataDigest, inCapsuleBytes }, (failure) => {
      if (failure !== undefined) {
        this.isUp = false
        return
      }
      this.queue.start()
      this.submitFence()
      for (let n = 0; n < busy; n++) this.submit()
    })
  }

  private submitFence(): void {
    const command = this.take(IoOpcode.Write, () => {})
    command.plain = this.fenceData
    command.lengthBytes = fenceBytes
    this.queue.submit(command)
  }

  private submit(): void {
    const { random } = this
    const opcode = random.pick([IoOpcode.Read, IoOpcode.Read, IoOpcode.Write, IoOpcode.Flush])
    const data = this.free.pop() ?? new Uint8Array(guardBytes + dataBytes + guardBytes).fill(guard)
    const lengthBytes = opcode === IoOpcode.Flush ? 0 : random.pick([512, 4096, dataBytes])
    const command = this.take(opcode, () => {
      for (let at = 0; at < data.length; at++) {
        if (at === guardBytes) at += lengthBytes
        if (data[at] !== guard) assert.fail(`seed ${seed}: byte ${at} outside of a command's data is written`)
      }
      data.fill(guard)
      this.free.push(data)
      if (this.isUp) this.submit()
    })
    command.plain = data
    command.dataOffset = guardBytes
    command.lengthBytes = lengthBytes
    this.queue.submit(command)
  }

  private take(opcode: number, done: () => void): HostCommand {
    let times = 0
    const command = this.queue.take({
      commandDone: (ended) => {
        if (++times > 1) assert.fail(`seed ${seed}: a command is answered twice`)
        this.completed++
        this.queue.give(ended)
        done()
      }
    })
    this.submitted++
    command.sqe[Sqe.opcode] = opcode
    setU32(command.sqe, Sqe.nsid, 1)
    setU64Number(command.sqe, Sqe.cdw10, this.random.below(1000))
    return command
  }

  /** The connection is gone: all that was on it is answered, and all of its places are free again. */
  private async ends(): Promise<void> {
    const isOver = deadlineIn(20_000)
    while (this.isUp || this.completed < this.submitted) {
      if (isOver()) {
        assert.fail(`seed ${seed}: ${this.submitted - this.completed} commands without an answer`)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.strictEqual(this.completed, this.submitted)
    assert.deepStrictEqual([this.queue.inFlight, this.queue.state], [0, "down"])
  }
}

describe("the embedded host and changed PDUs", () => {
  const wanted = wantedPdus(3000, 1_000_000)
  it(`${wanted} of them: no crash, no hang, memory flat, each command is answered once`, async () => {
    const reactor = new EmbeddedReactor()
    const random = makeRandom(seed)
    const all = await Promise.all(Array.from({ length: lanes }, () => new Lane(reactor, random).listen()))
    try {
      await fuzz("embedded host", wanted, lanes, (lane) => all[lane]?.session() ?? Promise.reject(new Error("no lane")))
    } finally {
      for (const lane of all) lane.close()
    }
  }, 1_800_000)
})
