/**
 * Cuts what a client sends into JSON texts. SPDK's server takes one after the other, with blanks or nothing between
 * them, closes the connection on what is no JSON, and has bounds; so has this one.
 */
import { currentLimits } from "../../rpc/connectionMessages.ts"

/** SPDK's receive buffer: the most bytes of one request. */
export const maxRequestBytes = currentLimits.maxBytes
/** SPDK's parser. */
const maxDepth = 64
const { maxValues } = currentLimits

/** The stream is not JSON, or exceeds a bound. There is no way to find the next request. */
export class FrameFault extends Error {}

const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a

const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const isNumberStart = (byte: number): boolean => byte === 0x2d || (byte >= 0x30 && byte <= 0x39)

const isNumberPart = (byte: number): boolean =>
  isNumberStart(byte) || byte === 0x2b || byte === 0x2e || byte === 0x45 || byte === 0x65

const literals = ["true", "false", "null"]

export class FrameReader {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  private pending: Buffer = Buffer.alloc(0)
  /** What of `pending` is known to lie inside the first text. */
  private scanned = 0
  private depth = 0
  private inString = false
  private values = 0

  /** Hands over each text that is complete now, parsed. Throws FrameFault; then it is of no more use. */
  push(chunk: Buffer, onText: (value: unknown) => void): void {
    this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk])
    for (;;) {
      if (this.scanned === 0) this.skipBlanks()
      const end = this.findEnd()
      if (end === undefined) break
      const text = this.pending.subarray(0, end)
      this.pending = this.pending.subarray(end)
      this.scanned = this.depth = this.values = 0
      onText(this.parse(text))
    }
    if (this.pending.length > maxRequestBytes) throw new FrameFault(`a request of more than ${maxRequestBytes} bytes`)
    // The chunk may be a window of a large buffer.
    if (this.pending.length > 0) this.pending = Buffer.from(this.pending)
  }

  private skipBlanks(): void {
    let start = 0
    while (start < this.pending.length && isBlank(this.pending[start] ?? 0)) start++
    this.pending = this.pending.subarray(start)
  }

  /** Where the first text ends, undefined when that is not known yet. */
  private findEnd(): number | undefined {
    const first = this.pending[0]
    if (first === undefined) return undefined
    if (first === openBrace || first === openBracket || first === quote) return this.findClose()
    if (isNumberStart(first)) {
      const end = this.pending.findIndex((byte) => !isNumberPart(byte))
      return end === -1 ? undefined : end
    }
    const head = this.pending.toString("latin1", 0, 5)
    const literal = literals.find((word) => word.startsWith(head) || head.startsWith(word))
    if (literal === undefined) throw new FrameFault("not JSON")
    return head.startsWith(literal) ? literal.length : undefined
  }

  private findClose(): number | undefined {
    const { pending } = this
    for (let at = this.scanned; at < pending.length; at++) {
      const byte = pending[at] ?? 0
      if (this.inString) {
        if (byte === backslash) {
          // What is escaped may not have arrived.
          if (at + 1 >= pending.length) return this.stopAt(at)
          at++
        } else if (byte === quote) {
          this.inString = false
          if (this.depth === 0) return at + 1
        }
      } else if (byte === quote) this.inString = true
      else if (byte === openBrace || byte === openBracket) {
        this.count()
        if (++this.depth > maxDepth) throw new FrameFault(`nests deeper than ${maxDepth} levels`)
      } else if (byte === closeBrace || byte === closeBracket) {
        this.count()
        if (--this.depth === 0) return at + 1
      } else if (byte === comma || byte === colon) this.count()
    }
    return this.stopAt(pending.length)
  }

  private stopAt(at: number): undefined {
    this.scanned = at
    return undefined
  }

  private count(): void {
    if (++this.values > maxValues) throw new FrameFault(`has more than ${maxValues} values`)
  }

  private parse(text: Uint8Array): unknown {
    try {
      return JSON.parse(this.decoder.decode(text))
    } catch {
      throw new FrameFault("not JSON")
    }
  }
}
