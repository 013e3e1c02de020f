/** Changed PDUs of all kinds against the embedded target: no crash, no hang, memory flat, and what others hold stays as it is. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { crc32c, setU16, setU32, getU16, getU32 } from "../src/internal/nvme/wire/bytes.ts"
import { AdminOpcode, IoOpcode, Sqe, writeSgl } from "../src/internal/nvme/wire/command.ts"
import {
  Cc,
  dynamicControllerId,
  encodeConnect,
  encodeConnectData,
  encodePropertySet,
  Property
} from "../src/internal/nvme/wire/fabrics.ts"
import {
  capsuleCmdBytes,
  encodeIcReq,
  PduFlag,
  PduFormat,
  PduType,
  plainFormat,
  shortHeaderBytes,
  writeCapsuleCmd,
  writeDataHeader
} from "../src/internal/nvme/wire/pdu.ts"
import { change, commandIdOf, formats, fuzz, seed, wantedPdus, Wire } from "./support/pduFuzz.ts"
import { makeRandom, type RandomSource } from "./support/random.ts"
import { command, makeTarget, nqn, withQueue } from "./support/rawNvmeHost.ts"

const lanes = 8
const hostNqn = "nqn.2024-01.io.x:fuzz"
/** Commands that are sent behind the changed ones, by which one sees that those have been taken. */
const fenceIds = 0xff00
const queueSize = 31

const withDigest = (bytes: Uint8Array, dataAt: number, dataBytes: number, format: PduFormat): void => {
  if (format.dataDigest && dataBytes > 0) setU32(bytes, dataAt + dataBytes, crc32c(bytes, dataAt, dataAt + dataBytes))
}

const capsule = (sqe: Uint8Array, format: PduFormat, data: Uint8Array = new Uint8Array(0)): Uint8Array => {
  const bytes = new Uint8Array(capsuleCmdBytes + 8 + data.length)
  bytes.set(sqe, 8)
  const dataAt = writeCapsuleCmd(bytes, 0, format, data.length)
  bytes.set(data, dataAt)
  withDigest(bytes, dataAt, data.length, format)
  return bytes.subarray(0, getU32(bytes, 4))
}

const withSgl = (sqe: Uint8Array, type: 0x01 | 0x5a, lengthBytes: number): Uint8Array => {
  writeSgl(sqe, 0, type, lengthBytes)
  return sqe
}

const withWords = (sqe: Uint8Array, dword10: number, dword11 = 0): Uint8Array => {
  setU32(sqe, Sqe.cdw10, dword10)
  setU32(sqe, Sqe.cdw11, dword11)
  return sqe
}

/** What the target has asked for. */
interface Wish {
  readonly commandId: number
  readonly transferTag: number
  readonly lengthBytes: number
}

/** One queue that the target serves. */
class Queue {
  readonly wire: Wire
  readonly format: PduFormat
  readonly wishes: Array<Wish> = []
  private fence = 0
  private isFenced = false
  /** Of the response to the last fence or connect command. */
  status = 0
  dword0 = 0

  constructor(wire: Wire, format: PduFormat) {
    this.wire = wire
    this.format = format
    wire.onPdu = (pdu) => this.heard(pdu)
  }

  private heard(pdu: Uint8Array): void {
    const type = pdu[0] ?? 0
    if (type === PduType.R2t && this.wishes.length < 32) {
      this.wishes.push({ commandId: commandIdOf(pdu), transferTag: getU16(pdu, 10), lengthBytes: getU32(pdu, 16) })
    }
    if (type !== PduType.CapsuleResp || commandIdOf(pdu) !== fenceIds + this.fence) return
    this.status = (getU16(pdu, 22) >>> 1) & 0x7ff
    this.dword0 = getU32(pdu, 8)
    this.isFenced = true
  }

  /** Whether the target is past these PDUs and still there. */
  passes(pdus: ReadonlyArray<Uint8Array>, sqe: Uint8Array, data?: Uint8Array): Promise<boolean> {
    this.fence = (this.fence + 1) & 0xff
    this.isFenced = false
    setU16(sqe, Sqe.commandId, fenceIds + this.fence)
    this.wire.send(...pdus, capsule(sqe, this.format, data))
    return this.wire.until("the command behind them", pdus.length > 0, () => this.isFenced)
  }

  async connect(queueId: number, controllerId: number): Promise<boolean> {
    const { dataDigest, headerDigest } = this.format
    this.wire.send(encodeIcReq({ version: 0, alignment: 0, headerDigest, dataDigest, maxR2t: 1 }))
    let isAgreed = false
    this.wire.onPdu = () => (isAgreed = true)
    if (!(await this.wire.until("ICResp", false, () => isAgreed))) return false
    this.wire.onPdu = (pdu) => this.heard(pdu)
    this.wire.format = this.format
    const sqe = encodeConnect({ recordFormat: 0, queueId, queueSize, attributes: 0, keepAliveMillis: 0 })
    const data = encodeConnectData({
      hostId: new Uint8Array(16).fill(9),
      controllerId,
      subsystemNqn: nqn,
      hostNqn
    })
    return (await this.passes([], withSgl(sqe, 0x01, data.length), data)) && this.status === 0
  }

  async enable(): Promise<boolean> {
    return await this.passes([], encodePropertySet(Property.Cc, BigInt(Cc.enable | Cc.entrySizes), false))
  }
}

const ioCommand = (random: RandomSource, queue: Queue): Uint8Array => {
  const commandId = random.below(queueSize)
  const blocks = 1 + random.below(8)
  const fields = { commandId, blocks, firstBlock: random.below(2040) }
  const { format } = queue
  const wish = random.chance(0.5) ? queue.wishes.shift() : undefined
  if (wish !== undefined) return h2cData(wish, random, format)
  const opcode = random.pick([
    IoOpcode.Read,
    IoOpcode.Read,
    IoOpcode.Write,
    IoOpcode.Write,
    IoOpcode.Flush,
    IoOpcode.Compare,
    IoOpcode.WriteZeroes,
    IoOpcode.DatasetManagement
  ])
  const sqe = command({ ...fields, opcode })
  if (opcode === IoOpcode.DatasetManagement) {
    return capsule(withWords(withSgl(sqe, 0x01, 16), 0, 4), format, new Uint8Array(16).fill(random.below(3)))
  }
  const hasData = opcode === IoOpcode.Write || opcode === IoOpcode.Compare
  return hasData && random.chance(0.5)
    ? capsule(withSgl(sqe, 0x01, blocks * 512), format, new Uint8Array(blocks * 512).fill(random.below(256)))
    : capsule(sqe, format)
}

const h2cData = (wish: Wish, random: RandomSource, format: PduFormat): Uint8Array => {
  const isWhole = random.chance(0.7)
  const lengthBytes = isWhole ? wish.lengthBytes : Math.min(wish.lengthBytes, 512)
  const bytes = new Uint8Array(shortHeaderBytes + 8 + lengthBytes)
  const flags = lengthBytes === wish.lengthBytes ? PduFlag.Last : 0
  const transfer = { ...wish, offsetBytes: 0, lengthBytes }
  const dataAt = writeDataHeader(bytes, 0, format, { type: PduType.H2cData, flags, transfer })
  withDigest(bytes, dataAt, lengthBytes, format)
  return bytes.subarray(0, getU32(bytes, 4))
}

const adminCommand = (random: RandomSource, { format }: Queue): Uint8Array => {
  const commandId = random.below(queueSize)
  const make = (opcode: number, dword10: number, lengthBytes: number, dword11 = 0): Uint8Array =>
    capsule(withWords(command({ opcode, commandId, lengthBytes, nsid: random.below(3) }), dword10, dword11), format)
  switch (random.below(9)) {
    case 0:
      return make(AdminOpcode.Identify, random.below(4), 4096)
    case 1:
      return make(AdminOpcode.GetLogPage, ((random.below(64) << 16) | random.below(16)) >>> 0, 4096)
    case 2:
      return make(AdminOpcode.GetFeatures, random.below(0x20), 0)
    case 3:
      return make(AdminOpcode.SetFeatures, random.below(0x20), 0, random.word())
    case 4:
      return make(AdminOpcode.Abort, random.word(), 0)
    case 5:
      return make(AdminOpcode.AsyncEventRequest, 0, 0)
    case 6:
      return make(AdminOpcode.KeepAlive, 0, 0)
    case 7:
      return capsule(withCommandId(encodePropertySet(Property.Cc, BigInt(Cc.enable), false), commandId), format)
    default: {
      const sqe = encodeConnect({ recordFormat: 0, queueId: 0, queueSize, attributes: 0, keepAliveMillis: 0 })
      return capsule(withCommandId(withSgl(sqe, 0x01, 1024), commandId), format, new Uint8Array(1024))
    }
  }
}

const withCommandId = (sqe: Uint8Array, commandId: number): Uint8Array => {
  setU16(sqe, Sqe.commandId, commandId)
  return sqe
}

/** Sends changed PDUs until the target has had enough, or a while. */
const changedOn = async (
  queue: Queue,
  random: RandomSource,
  make: (random: RandomSource, queue: Queue) => Uint8Array,
  fence: () => Uint8Array
): Promise<number> => {
  let counted = 0
  for (let turn = 0; turn < 64; turn++) {
    const pdus = Array.from({ length: random.pick([1, 2, 4]) }, () =>
      random.chance(0.1) ? make(random, queue) : change(random, make(random, queue), queue.format)
    )
    const isAlive = await queue.passes(pdus, fence())
    counted += isAlive ? pdus.length : queue.wire.countedOf(pdus)
    if (!isAlive) break
  }
  return counted
}

const flush = (): Uint8Array => command({ opcode: IoOpcode.Flush, commandId: 0, lengthBytes: 0 })
const keepAlive = (): Uint8Array => command({ opcode: AdminOpcode.KeepAlive, commandId: 0, nsid: 0, lengthBytes: 0 })
const connectedTo = async (port: number, format: PduFormat): Promise<Queue> => new Queue(await Wire.dial(port), format)

/** A changed ICReq or connect command. */
const beginning = async (port: number, random: RandomSource): Promise<number> => {
  const queue = await connectedTo(port, plainFormat)
  const icReq = encodeIcReq({ version: 0, alignment: 0, headerDigest: false, dataDigest: false, maxR2t: 1 })
  const sqe = encodeConnect({ recordFormat: 0, queueId: 0, queueSize, attributes: 0, keepAliveMillis: 0 })
  const data = encodeConnectData({
    hostId: new Uint8Array(16).fill(9),
    controllerId: dynamicControllerId,
    subsystemNqn: nqn,
    hostNqn
  })
  const connect = capsule(withSgl(sqe, 0x01, data.length), plainFormat, data)
  if (random.chance(0.5)) {
    const changed = change(random, icReq, plainFormat)
    // It may ask for digests, which what follows does not have.
    queue.wire.format = formatAskedFor(changed)
    await queue.passes([changed], sqe, data)
    queue.wire.close()
    return 1
  }
  let counted = 0
  for (let turn = 0; turn < 16; turn++) {
    const isAlive = await queue.passes(
      [...(turn === 0 ? [icReq] : []), change(random, connect.slice(), plainFormat)],
      keepAlive()
    )
    counted++
    if (!isAlive) break
  }
  queue.wire.close()
  return counted
}

const formatAskedFor = (icReq: Uint8Array): PduFormat =>
  new PduFormat({
    headerDigest: ((icReq[11] ?? 0) & 1) !== 0,
    dataDigest: ((icReq[11] ?? 0) & 2) !== 0,
    alignment: Math.min(icReq[10] ?? 0, 31)
  })

/** A controller of its own for each lane, whose I/O queues come and go. */
class Lane {
  private readonly port: number
  private admin: Queue | undefined = undefined
  private controllerId = 0
  private lastQueueId = 0

  constructor(port: number) {
    this.port = port
  }

  async io(random: RandomSource): Promise<number> {
    const admin = this.admin ?? (await this.controller())
    const queue = await connectedTo(this.port, random.pick(formats))
    this.lastQueueId = (this.lastQueueId % 100) + 1
    if (!(await queue.connect(this.lastQueueId, this.controllerId))) {
      queue.wire.close()
      // A lane that is without its controller makes another one.
      assert.isTrue(admin.wire.isEnded || queue.status !== 0, `seed ${seed}: an I/O queue is refused`)
      admin.wire.close()
      this.admin = undefined
      return 0
    }
    const counted = await changedOn(queue, random, ioCommand, flush)
    queue.wire.close()
    return counted
  }

  async adminQueue(random: RandomSource): Promise<number> {
    const queue = await connectedTo(this.port, random.pick(formats))
    assert.isTrue(await queue.connect(0, dynamicControllerId), `seed ${seed}: a controller is refused: ${queue.status}`)
    assert.isTrue(await queue.enable())
    const counted = await changedOn(queue, random, adminCommand, keepAlive)
    queue.wire.close()
    return counted
  }

  private async controller(): Promise<Queue> {
    const queue = await connectedTo(this.port, plainFormat)
    assert.isTrue(await queue.connect(0, dynamicControllerId), `seed ${seed}: a controller is refused: ${queue.status}`)
    this.controllerId = queue.dword0 & 0xffff
    assert.isTrue(await queue.enable())
    this.admin = queue
    return queue
  }
}

const sessionsOn = (port: number, random: RandomSource) => {
  const all = Array.from({ length: lanes }, () => new Lane(port))
  return async (at: number): Promise<number> => {
    const lane = all[at]
    const kind = random.below(10)
    if (lane === undefined || kind === 0) return await beginning(port, random)
    return kind < 4 ? await lane.adminQueue(random) : await lane.io(random)
  }
}

/** Written before, and compared after. */
const kept = new Uint8Array(4096).map((_, at) => (at * 7) & 0xff)

describe("the embedded target and changed PDUs", () => {
  const wanted = wantedPdus(10_000, 4_000_000)
  it.live(
    `${wanted} of them: no crash, no hang, memory flat, and the data of others stays`,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port, rpc } = yield* makeTarget()
          yield* rpc.call("bdev_malloc_create", { name: "M1", num_blocks: 2048, block_size: 512 })
          const subsystemNqn = `${nqn}-other`
          yield* rpc.call("nvmf_create_subsystem", { nqn: subsystemNqn, allow_any_host: true })
          yield* rpc.call("nvmf_subsystem_add_ns", { nqn: subsystemNqn, namespace: { bdev_name: "M1" } })
          const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
          yield* rpc.call("nvmf_subsystem_add_listener", { nqn: subsystemNqn, listen_address })
          const other = yield* withQueue(port, { subsystemNqn })
          const says = (opcode: number) =>
            Effect.gen(function* () {
              const sqe = withSgl(command({ opcode, commandId: 1, blocks: 8 }), 0x01, kept.length)
              other.io.send(capsule(sqe, plainFormat, kept))
              assert.deepInclude(yield* other.io.response, { commandId: 1, status: 0 })
            })
          yield* says(IoOpcode.Write)
          yield* says(IoOpcode.Compare)
          yield* Effect.promise(() => fuzz("embedded target", wanted, lanes, sessionsOn(port, makeRandom(seed))))
          yield* says(IoOpcode.Compare)
          yield* withQueue(port)
        })
      ),
    1_800_000
  )
})
