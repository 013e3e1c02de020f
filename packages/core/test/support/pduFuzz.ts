/**
 * What the tests with changed PDUs share: how they change a PDU, a raw end of an NVMe/TCP connection that checks the form of
 * what it is told, and the question whether memory grows.
 *
 * A PDU counts when the other side has shown that it is past it: an answer to what was sent behind it, or the end of
 * the connection. Of a group that ends a connection one counts, because the rest may not have been read.
 */
import { assert } from "@effect/vitest"
import * as net from "node:net"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { crc32c, setU32, getU16, getU32 } from "../../src/internal/nvme/wire/bytes.ts"
import {
  capsuleCmdBytes,
  checkCommonHeader,
  commonHeaderBytes,
  PduFormat,
  plainFormat,
  PduType,
  type Receiver,
  shortHeaderBytes
} from "../../src/internal/nvme/wire/pdu.ts"
import type { RandomSource } from "./random.ts"

export const isLong = process.env["EFFECT_SPDK_LONG"] === "1"
export const seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Math.floor(Math.random() * 2 ** 32)) >>> 0

/** EFFECT_SPDK_PDUS divides the long form into runs with seeds of their own. */
export const wantedPdus = (short: number, long: number): number =>
  Number(process.env["EFFECT_SPDK_PDUS"] ?? (isLong ? long : short))

const tempting = [0, 1, 2, 3, 4, 5, 6, 7, 9, 24, 72, 127, 128, 254, 255]

const changeByte = (random: RandomSource, pdu: Uint8Array, at: number): void => {
  const old = pdu[at] ?? 0
  const kind = random.below(4)
  if (kind === 0) pdu[at] = random.pick(tempting)
  else if (kind === 1) pdu[at] = old ^ (1 << random.below(8))
  else if (kind === 2) pdu[at] = old + (random.chance(0.5) ? 1 : -1)
  else pdu[at] = random.below(256)
  // The same again would be no change.
  if (pdu[at] === old) pdu[at] = old ^ 0x01
}

/**
 * Changes a byte or up to three: of the data, mostly of the header behind its common part (which a receiver looks at only when
 * that part is right), of the common header, or anywhere.
 */
export const change = (random: RandomSource, pdu: Uint8Array, format: PduFormat): Uint8Array => {
  const headerBytes = pdu[0] === PduType.CapsuleCmd ? capsuleCmdBytes : Math.min(shortHeaderBytes, pdu.length)
  const part = random.below(20)
  const [from, to] =
    part < 5 && pdu.length > headerBytes
      ? [headerBytes, pdu.length]
      : part < 16
        ? [commonHeaderBytes, headerBytes]
        : part < 18
          ? [0, commonHeaderBytes]
          : [0, pdu.length]
  for (let n = random.chance(0.6) ? 0 : random.below(3); n >= 0; n--)
    changeByte(random, pdu, from + random.below(to - from))
  // A wrong digest hides every other fault, so that most are made right again.
  if (format.headerDigest && random.chance(0.85)) setU32(pdu, headerBytes, crc32c(pdu, 0, headerBytes))
  return pdu
}

export const formats: ReadonlyArray<PduFormat> = [
  plainFormat,
  new PduFormat({ headerDigest: true, dataDigest: false, alignment: 0 }),
  new PduFormat({ headerDigest: true, dataDigest: true, alignment: 0 })
]

/** How long the other side may take to do anything at all, in seconds that the event loop was there for: a stopped process has none. */
const hangSeconds = 20
/** And in turns of it, where they are counted: a process that hardly runs has few. */
const hangTurns = 20_000
/**
 * When nothing comes back for so many turns of the event loop, which serves both ends, it may be that a changed length makes the
 * other side wait for more bytes.
 */
const quietTurns = 200
/** More than any PDU has, and no PDU. */
const noise = Buffer.alloc(192 * 1024)

/** One end of a connection, and the PDUs that the other one sends; each has to be well-formed. */
export class Wire {
  readonly socket: net.Socket
  isEnded = false
  /** The header that a termination request told off. */
  private quoted = Buffer.alloc(0)
  /** Of what is received. */
  format = plainFormat
  onPdu: (bytes: Buffer) => void = () => {}
  /** What this end is of. */
  private readonly receiver: Receiver
  private buffer: Buffer = Buffer.alloc(0)
  private lastSaid: ReadonlyArray<Uint8Array> = []
  private readonly wakes = new Set<() => void>()

  constructor(socket: net.Socket, receiver: Receiver) {
    this.socket = socket
    this.receiver = receiver
    socket.setNoDelay(true)
    socket.on("data", (chunk: Buffer) => this.take(chunk))
    socket.on("error", () => {})
    socket.on("end", () => socket.destroy())
    socket.on("close", () => {
      this.isEnded = true
      this.wake()
    })
  }

  static dial(port: number): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(port, "127.0.0.1")
      socket.once("error", reject)
      socket.once("connect", () => {
        socket.off("error", reject)
        resolve(new Wire(socket, "host"))
      })
    })
  }

  /** For the report of a hang: what was said last, and how far it got. */
  private get state(): string {
    const { bytesRead, bytesWritten, readyState, writableLength } = this.socket
    const said = this.lastSaid.map((piece) => Buffer.from(piece.subarray(0, 160)).toString("hex")).join(" ")
    return `socket ${readyState}, read ${bytesRead}, written ${bytesWritten}, waiting ${writableLength}, said ${said}`
  }

  send(...pieces: ReadonlyArray<Uint8Array>): void {
    if (pieces[0] !== noise) this.lastSaid = pieces
    if (!this.isEnded) this.socket.write(pieces.length === 1 ? (pieces[0] ?? noise) : Buffer.concat(pieces))
  }

  /**
   * True when the condition holds, false when the connection has ended. After changed PDUs a long wait ends by noise, which ends
   * every wait of the other side for more bytes; one that even then neither answers nor hangs up has failed.
   */
  async until(what: string, hasChanged: boolean, holds: () => boolean): Promise<boolean> {
    if (holds()) return true
    let isWaiting = true
    let seconds = 0
    let hang: NodeJS.Timeout | undefined
    try {
      return await new Promise<boolean>((resolve, reject) => {
        const look = (): void => {
          if (holds()) resolve(true)
          else if (this.isEnded) resolve(false)
        }
        this.wakes.add(look)
        let turns = 0
        const listen = (): void => {
          if (!isWaiting) return
          if (++turns % quietTurns === 0 && this.socket.writableLength < noise.length) this.send(noise)
          setImmediate(listen)
        }
        if (hasChanged) setImmediate(listen)
        hang = setInterval(() => {
          if (hasChanged && this.socket.writableLength < noise.length) this.send(noise)
          if (++seconds < hangSeconds || (hasChanged && turns < hangTurns)) return
          reject(
            new Error(`seed ${seed}: no answer and no end: ${what}; ${turns} turns of the event loop, ${this.state}`)
          )
        }, 1000)
        look()
      })
    } finally {
      this.wakes.clear()
      isWaiting = false
      clearInterval(hang)
    }
  }

  /**
   * How many of the PDUs that have ended the connection were read: the termination request quotes the one at fault. Those before
   * it were read; without such a request, one.
   */
  countedOf(pdus: ReadonlyArray<Uint8Array>): number {
    const { quoted } = this
    const at = pdus.findIndex((pdu) => Buffer.compare(pdu.subarray(0, quoted.length), quoted) === 0)
    return quoted.length === 0 || at === -1 ? 1 : at + 1
  }

  close(): void {
    this.socket.destroy()
  }

  wake(): void {
    for (const wake of this.wakes) wake()
  }

  private take(chunk: Buffer): void {
    let bytes = this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk])
    while (bytes.length >= commonHeaderBytes && !this.isEnded) {
      const fault = checkCommonHeader(bytes, 0, this.receiver, this.format)
      if (fault !== undefined) assert.fail(`seed ${seed}: sent by the other side: ${fault.message}`)
      const pduBytes = getU32(bytes, 4)
      if (bytes.length < pduBytes) break
      const type = bytes[0]
      if (type === PduType.C2hTermReq || type === PduType.H2cTermReq) {
        this.quoted = Buffer.from(bytes.subarray(shortHeaderBytes, pduBytes))
      }
      this.onPdu(bytes.subarray(0, pduBytes))
      bytes = bytes.subarray(pduBytes)
    }
    this.buffer = bytes
    this.wake()
  }
}

/** The command of a response, or that a data PDU belongs to. */
export const commandIdOf = (pdu: Uint8Array): number => getU16(pdu, pdu[0] === PduType.CapsuleResp ? 20 : 8)

setFlagsFromString("--expose-gc")
const collect: () => void = runInNewContext("gc")

const mebibyte = 1024 * 1024

/**
 * Memory after each part of a run, and the verdict. Connections that are about to close hold some, now more and now less: what
 * counts is the least of each half of the run.
 */
export class Memory {
  private readonly samples: Array<{ readonly rss: number; readonly held: number }> = []

  sample(): void {
    collect()
    const { arrayBuffers, heapUsed, rss } = process.memoryUsage()
    this.samples.push({ rss: rss / mebibyte, held: (heapUsed + arrayBuffers) / mebibyte })
  }

  assertFlat(): string {
    this.assertField("held", 8)
    this.assertField("rss", 32)
    const list = (field: "rss" | "held") => this.samples.map((one) => one[field].toFixed(0)).join(" ")
    return `RSS ${list("rss")} MiB, held ${list("held")} MiB`
  }

  private assertField(field: "rss" | "held", limit: number): void {
    const half = this.samples.length / 2
    const least = (samples: typeof this.samples) => Math.min(...samples.map((one) => one[field]))
    const growth = least(this.samples.slice(half)) - least(this.samples.slice(0, half))
    assert.isBelow(growth, limit, `seed ${seed}: growth of ${field} in MiB, ${this.samples.map((one) => one[field])}`)
  }
}

/** Runs sessions, several at a time, until so many PDUs have counted. */
export const fuzz = async (
  name: string,
  wanted: number,
  lanes: number,
  session: (lane: number) => Promise<number>
): Promise<void> => {
  const memory = new Memory()
  const started = performance.now()
  const parts = 8
  let counted = 0
  let sessions = 0
  for (let part = 1; part <= parts; part++) {
    const goal = (wanted * part) / parts
    await Promise.all(
      Array.from({ length: lanes }, async (_, lane) => {
        while (counted < goal) {
          const more = await session(lane)
          counted += more
          sessions++
        }
      })
    )
    memory.sample()
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(`${name}: seed ${seed}, ${counted} PDUs in ${sessions} sessions, ${seconds} s; ${memory.assertFlat()}`)
}
