/**
 * An embedded engine without the public modules around it, and what its tests do with a queue.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import {
  type Entry,
  type Handle,
  makeEntry,
  type Queue,
  type RequestId,
  type SlabRange
} from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as CpuSet from "../../src/CpuSet.ts"
import type { BdevModule } from "../../src/internal/embedded/bdev/module.ts"
import type { BdevRegistry } from "../../src/internal/embedded/bdev/registry.ts"
import { type EmbeddedOptions, make } from "../../src/internal/embedded/index.ts"
import type { Descriptor, DescriptorEvent, Engine, EngineThread, Slab } from "../../src/internal/engine/engine.ts"
import type { RpcParams } from "../../src/Rpc.ts"

export const options: EmbeddedOptions = {
  name: "test",
  cores: CpuSet.makeUnsafe([0, 2, 5]),
  memoryMiB: 64,
  rpcSocket: undefined,
  logLevel: "notice",
  onLog: () => {}
}

export const makeEngine = <E = never>(
  overrides: Partial<EmbeddedOptions> = {},
  start: {
    readonly waitsForStart?: boolean
    readonly configure?: (rpc: Engine["rpc"]) => Effect.Effect<void, E>
    readonly modules?: (registry: BdevRegistry) => ReadonlyArray<BdevModule>
  } = {}
) => make<E>({ ...options, ...overrides }, start)

/** How a request ended. */
export interface Ended {
  readonly status: number
  readonly detail: number
  readonly nvme: number
}

export const ok: Ended = { status: 0, detail: 0, nvme: 0 }
export const failed: Ended = { status: -5, detail: 0, nvme: 0x10006 }
export const aborted: Ended = { status: -125, detail: 0, nvme: 0x10007 }

/** A request that has been submitted. */
export interface Pending {
  readonly id: RequestId
  /** How often it has completed. */
  readonly times: () => number
  readonly ended: Effect.Effect<Ended>
}

/** Submits, and does not wait. */
export const start = (queue: Queue, entry: Partial<Entry>): Pending => {
  let times = 0
  let ended: Ended | undefined
  let onEnded = (_ended: Ended): void => {}
  const complete = (_index: number, status: number, detail: number, nvme: number): void => {
    times++
    ended = { status, detail, nvme }
    onEnded(ended)
  }
  const id = queue.submit({ ...makeEntry(), ...entry }, { complete }, 0)
  return {
    id,
    times: () => times,
    ended: Effect.callback((resume) => {
      if (ended !== undefined) return resume(Effect.succeed(ended))
      onEnded = (how) => resume(Effect.succeed(how))
    })
  }
}

/** Submits, and waits. */
export const run = (queue: Queue, entry: Partial<Entry>): Effect.Effect<Ended> =>
  Effect.suspend(() => start(queue, entry).ended)

/** An open bdev with a channel on a thread. */
export interface Disk {
  readonly engine: Engine
  readonly thread: EngineThread
  readonly descriptor: Descriptor
  readonly channel: Handle
  readonly events: Array<DescriptorEvent>
}

export const open = Effect.fnUntraced(function* (
  engine: Engine,
  name: string,
  settings: { readonly write?: boolean; readonly thread?: EngineThread } = {}
): Effect.fn.Return<Disk, Effect.Error<ReturnType<Engine["openBdev"]>>, Scope.Scope> {
  const thread = settings.thread ?? engine.mainThread
  const events: Array<DescriptorEvent> = []
  const descriptor = yield* Effect.acquireRelease(
    engine.openBdev(name, { write: settings.write ?? true, onEvent: (event) => events.push(event) }),
    (opened) => engine.closeBdev(opened)
  )
  const channel = yield* Effect.acquireRelease(engine.openChannel(thread, descriptor), (opened) =>
    engine.closeChannel(thread, opened)
  )
  return { engine, thread, descriptor, channel, events }
})

export const slab = (
  engine: Engine,
  lengthBytes = 4096,
  alignmentBytes = 4096
): Effect.Effect<Slab, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.orDie(engine.memory.allocate(lengthBytes, alignmentBytes)), (taken) =>
    Effect.sync(() => engine.memory.free(taken))
  )

const onChannel = ({ channel }: Disk): Partial<Entry> => ({
  channelSlot: channel.slot,
  channelGeneration: channel.generation
})

/** A read or a write of a whole slab. */
export const transfer = (disk: Disk, opcode: Opcode, memory: Slab, offsetBlocks: number): Partial<Entry> => ({
  ...onChannel(disk),
  opcode,
  slabSlot: memory.slot,
  slabGeneration: memory.generation,
  offsetBlocks,
  lengthBlocks: memory.lengthBytes / disk.descriptor.info.blockSizeBytes
})

export const vectored = (
  disk: Disk,
  opcode: Opcode,
  segments: ReadonlyArray<SlabRange>,
  offsetBlocks: number
): Partial<Entry> => ({
  ...onChannel(disk),
  opcode,
  offsetBlocks,
  lengthBlocks: segments.reduce((sum, segment) => sum + segment.lengthBytes, 0) / disk.descriptor.info.blockSizeBytes,
  segments
})

/** Anything without memory. */
export const command = (disk: Disk, opcode: Opcode, offsetBlocks = 0, lengthBlocks = 1): Partial<Entry> => ({
  ...onChannel(disk),
  opcode,
  offsetBlocks,
  lengthBlocks
})

export const read = (disk: Disk, memory: Slab, offsetBlocks: number): Effect.Effect<Ended> =>
  run(disk.thread.queue, transfer(disk, Opcode.Read, memory, offsetBlocks))

export const write = (disk: Disk, memory: Slab, offsetBlocks: number): Effect.Effect<Ended> =>
  run(disk.thread.queue, transfer(disk, Opcode.Write, memory, offsetBlocks))

export const control = (
  disk: Disk,
  opcode: Opcode,
  offsetBlocks?: number,
  lengthBlocks?: number
): Effect.Effect<Ended> => run(disk.thread.queue, command(disk, opcode, offsetBlocks, lengthBlocks))

/** Bytes that tell where they belong. */
export const pattern = (lengthBytes: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: lengthBytes }, (_, at) => (at * 7 + (at >>> 8) * 13 + seed * 31) & 0xff)

/** The parameters of a malloc bdev. */
export const malloc = (name: string, numBlocks = 64, blockSize = 512): RpcParams => ({
  name,
  num_blocks: numBlocks,
  block_size: blockSize
})

/** One turn of Node's loop: what can end by then has. */
export const turn: Effect.Effect<void> = Effect.callback((resume) => {
  setImmediate(() => resume(Effect.void))
})
