/**
 * The state of an open bdev, or of what else takes I/O in blocks, shared by everything that does I/O through its handle.
 */
import { Opcode, operations, type OperationTraits } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type { BdevEvent } from "../../Bdev.ts"
import type { BouncePool } from "../memory/bouncePool.ts"
import { BdevChannels } from "./channels.ts"
import type { Descriptor, Engine } from "../engine/engine.ts"

/** What the I/O path checks: one bit per opcode. */
const maskOf = (has: (traits: OperationTraits) => boolean): number =>
  Object.values(Opcode).reduce<number>((mask, opcode) => (has(operations[opcode]) ? mask | (1 << opcode) : mask), 0)

export const writingOpcodes: number = maskOf(({ writes }) => writes)

const supportedOpcodes = (ioTypes: ReadonlyArray<string>): number =>
  maskOf(({ ioType }) => ioType !== null && ioTypes.includes(ioType))

/** The names of operations in errors. */
export interface IoOperations {
  readonly read: string
  readonly write: string
  readonly readv: string
  readonly writev: string
  readonly flush: string
  readonly unmap: string
  readonly writeZeroes: string
  readonly reset: string
  readonly readBytes: string
  readonly writeBytes: string
  readonly readBatch: string
  readonly writeBatch: string
  readonly prepareReads: string
  readonly prepareWrites: string
  readonly stream: string
  readonly sink: string
  readonly channel: string
  readonly closeChannel: string
}

export const ioOperations = (of: string): IoOperations => ({
  read: `${of}.read`,
  write: `${of}.write`,
  readv: `${of}.readv`,
  writev: `${of}.writev`,
  flush: `${of}.flush`,
  unmap: `${of}.unmap`,
  writeZeroes: `${of}.writeZeroes`,
  reset: `${of}.reset`,
  readBytes: `${of}.readBytes`,
  writeBytes: `${of}.writeBytes`,
  readBatch: `${of}.readBatch`,
  writeBatch: `${of}.writeBatch`,
  prepareReads: `${of}.prepareReads`,
  prepareWrites: `${of}.prepareWrites`,
  stream: `${of}.stream`,
  sink: `${of}.sink`,
  channel: `${of}.channel`,
  closeChannel: `${of}Channel.close`
})

/** What is open, to people, and how its descriptor is closed. */
export interface TargetKind {
  readonly noun: string
  readonly operations: IoOperations
  readonly close: (descriptor: Descriptor) => Effect.Effect<void>
}

const bdevOperations = ioOperations("Bdev")

export class OpenTarget {
  readonly engine: Engine
  readonly kind: TargetKind
  readonly operations: IoOperations
  readonly descriptor: Descriptor
  readonly name: string
  readonly blockSize: number
  readonly bufferAlignment: number
  writable: boolean
  readonly supported: number
  readonly channels: BdevChannels
  readonly bounce: BouncePool
  /** The opcodes that may be submitted now, one bit each: none once the bdev is removed or the handle closes. */
  allowed: number
  numBlocks: number
  removed: boolean
  closing: boolean
  /** Requests in flight on all threads, channels that are being opened included. */
  private inFlight: number
  private onIdle: (() => void) | undefined
  private readonly listeners: Set<(event: BdevEvent | "closed") => void>

  constructor(engine: Engine, descriptor: Descriptor, bounce: BouncePool, kind?: TargetKind) {
    this.engine = engine
    this.kind = kind ?? { noun: "bdev", operations: bdevOperations, close: (opened) => engine.closeBdev(opened) }
    this.operations = this.kind.operations
    this.descriptor = descriptor
    this.name = descriptor.info.name
    this.blockSize = descriptor.info.blockSizeBytes
    this.bufferAlignment = descriptor.info.bufferAlignmentBytes
    this.writable = descriptor.writable
    this.supported = supportedOpcodes(descriptor.info.supportedIoTypes)
    this.allowed = this.writable ? this.supported : this.supported & ~writingOpcodes
    this.numBlocks = descriptor.info.numBlocks
    this.removed = false
    this.closing = false
    this.inFlight = 0
    this.onIdle = undefined
    this.listeners = new Set()
    this.channels = new BdevChannels(this)
    this.bounce = bounce
  }

  setWritable(writable: boolean): void {
    this.writable = writable
    if (!this.removed && !this.closing) this.allowed = writable ? this.supported : this.supported & ~writingOpcodes
  }

  enter(requests: number): void {
    this.inFlight += requests
  }

  leave(requests: number): void {
    this.inFlight -= requests
    if (this.inFlight === 0 && this.onIdle !== undefined) this.onIdle()
  }

  onEvent(event: BdevEvent): void {
    if (this.removed) return
    if (event._tag === "Resized") this.numBlocks = event.numBlocks
    else {
      this.removed = true
      this.allowed = 0
    }
    for (const listener of this.listeners) listener(event)
  }

  /** The listener hears "closed" last, when the handle closes. */
  listen(listener: (event: BdevEvent | "closed") => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** Waits for the I/O, then gives back the channels and the descriptor. */
  close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closing = true
      this.allowed = 0
      return this.awaitIdle.pipe(
        Effect.andThen(this.channels.closeAll),
        Effect.andThen(this.kind.close(this.descriptor)),
        Effect.andThen(Effect.sync(() => this.tellClosed()))
      )
    })
  }

  private readonly awaitIdle: Effect.Effect<void> = Effect.suspend(() =>
    this.inFlight === 0
      ? Effect.void
      : Effect.callback<void>((resume) => {
          this.onIdle = () => resume(Effect.void)
        })
  )

  private tellClosed(): void {
    for (const listener of this.listeners) listener("closed")
    this.listeners.clear()
  }
}
