/**
 * Splits a byte stream of JSON objects, which follow each other with blanks or nothing between them, into objects.
 * SPDK's RPC server and its clients send no delimiter.
 */

/** Why a stream is not a stream of JSON objects. */
export class FrameError extends Error {}

export interface FrameLimits {
  /** Bytes of one message; more is a FrameError before they are all in memory. */
  readonly maxMessageBytes: number
  /** Nesting of one message. SPDK's own parser stops at 64. */
  readonly maxDepth: number
}

export const defaultLimits: FrameLimits = { maxMessageBytes: 64 * 1024 * 1024, maxDepth: 128 }

export interface FrameSplitter {
  /** Takes the next bytes and hands over each message that is complete now. Throws FrameError; then it is of no more use. */
  readonly push: (chunk: Uint8Array, onMessage: (message: unknown) => void) => void
  /** The message that has begun and not ended, by its number from 0; undefined between messages. */
  readonly unfinished: () => number | undefined
}

const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const quote = 0x22
const backslash = 0x5c

const isBlank = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

export const make = (limits: FrameLimits = defaultLimits): FrameSplitter => {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  let messages = 0
  let depth = 0
  let inString = false
  let escaped = false
  let pieces: Array<Uint8Array> = []
  let pieceBytes = 0

  const parse = (last: Uint8Array): unknown => {
    let bytes = last
    if (pieces.length > 0) {
      pieces.push(last)
      bytes = Buffer.concat(pieces)
      pieces = []
      pieceBytes = 0
    }
    try {
      return JSON.parse(decoder.decode(bytes))
    } catch {
      throw new FrameError(`sent text that is not JSON: ${excerpt(bytes)}`)
    }
  }

  const keep = (piece: Uint8Array) => {
    // A copy, because the chunk may be a window of a large buffer that the socket fills again.
    pieces.push(piece.slice())
    pieceBytes += piece.length
  }

  const push = (chunk: Uint8Array, onMessage: (message: unknown) => void): void => {
    let start = 0
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0
      if (depth === 0) {
        if (isBlank(byte)) continue
        if (byte !== openBrace)
          throw new FrameError(`sent a value that is not a JSON object: ${excerpt(chunk.subarray(at))}`)
        depth = 1
        start = at
      } else if (inString) {
        if (escaped) escaped = false
        else if (byte === backslash) escaped = true
        else if (byte === quote) inString = false
      } else if (byte === quote) {
        inString = true
      } else if (byte === openBrace || byte === openBracket) {
        if (++depth > limits.maxDepth) throw new FrameError(`nests deeper than ${limits.maxDepth} levels`)
      } else if (byte === closeBrace || byte === closeBracket) {
        if (--depth === 0) {
          checkLength(at + 1 - start)
          const message = parse(chunk.subarray(start, at + 1))
          messages++
          onMessage(message)
        }
      }
    }
    if (depth > 0) {
      checkLength(chunk.length - start)
      keep(chunk.subarray(start))
    }
  }

  const checkLength = (moreBytes: number) => {
    if (pieceBytes + moreBytes > limits.maxMessageBytes) {
      throw new FrameError(`sent a message of more than ${limits.maxMessageBytes} bytes`)
    }
  }

  return { push, unfinished: () => (depth > 0 ? messages : undefined) }
}

/** The beginning of bytes, printable. */
const excerpt = (bytes: Uint8Array): string => {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 40)).toString("latin1")
  return JSON.stringify(text) + (bytes.length > 40 ? "..." : "")
}
