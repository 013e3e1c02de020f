/**
 * A store of blobs in memory with a volatile write cache, for the key-value log: it fails or loses power at any chosen
 * operation, and a power cut keeps an arbitrary part of what was not synced, block by block. New blobs hold what deleted ones
 * left there, as clusters do.
 */
import { IoFailed, NoSpace, NotFound, Busy, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { KvBlob, KvBlobs } from "../../src/internal/kv/port.ts"

export const clusterBytes = 65_536
export const blockBytes = 512

interface Stored {
  durable: Uint8Array
  cached: Uint8Array
  /** Blocks of `cached` that are not durable. */
  readonly dirty: Set<number>
  durableXattrs: Map<string, Uint8Array>
  xattrs: Map<string, Uint8Array>
  opens: number
}

export interface Fault {
  /** The operation that fails, counted from 1 over everything that changes the disk. */
  readonly at: number
  /** "error": this one only. "late": the same, and it has taken effect. "crash": this one and everything after it. */
  readonly kind: "error" | "late" | "crash"
}

export class KvDisk {
  readonly blobs = new Map<number, Stored>()
  private readonly freed: Array<Uint8Array> = []
  private readonly totalClusters: number
  operations = 0
  syncs = 0
  fault: Fault | undefined
  private down = false
  /** Who used the disk before power was lost is a process that no longer exists. */
  private boot = 0

  constructor(totalClusters = 1024) {
    this.totalClusters = totalClusters
  }

  get usedClusters(): number {
    let bytes = 0
    for (const blob of this.blobs.values()) bytes += blob.cached.length
    return bytes / clusterBytes
  }

  /** What the disk holds after power was lost: of every block that was not synced the old content, or the new. */
  powerCut(keeps: () => boolean): void {
    for (const blob of this.blobs.values()) {
      for (const block of blob.dirty) {
        const from = block * blockBytes
        if (keeps()) blob.durable.set(blob.cached.subarray(from, from + blockBytes), from)
      }
      blob.dirty.clear()
      blob.cached = blob.durable.slice()
      blob.xattrs = new Map(blob.durableXattrs)
      blob.opens = 0
    }
    this.boot++
    this.down = false
    this.fault = undefined
  }

  /** Counts one change; false when it fails. */
  private step(boot: number): boolean {
    if (this.down || boot !== this.boot) return false
    this.operations++
    if (this.fault === undefined || this.operations !== this.fault.at) return true
    if (this.fault.kind === "crash") this.down = true
    return false
  }

  private change<A>(
    boot: number,
    operation: string,
    body: () => Effect.Effect<A, SpdkError>
  ): Effect.Effect<A, SpdkError> {
    return Effect.andThen(
      Effect.yieldNow,
      Effect.suspend(() => {
        if (this.step(boot)) return body()
        const failed = Effect.fail(new SpdkError({ reason: new IoFailed({ operation, detail: "injected" }) }))
        return this.fault?.kind === "late" && boot === this.boot ? Effect.andThen(body(), failed) : failed
      })
    )
  }

  private get(id: number): Effect.Effect<Stored, SpdkError> {
    const blob = this.blobs.get(id)
    return blob === undefined
      ? Effect.fail(new SpdkError({ reason: new NotFound({ operation: `blob ${id}` }) }))
      : Effect.succeed(blob)
  }

  get port(): KvBlobs {
    const { boot } = this
    return {
      blockBytes,
      clusterBytes,
      ids: Effect.sync(() => [...this.blobs.keys()]),
      create: (sizeBytes, xattrs) => this.change(boot, "create", () => this.create(sizeBytes, xattrs)),
      xattrs: (id) => Effect.map(this.get(id), (blob) => new Map(blob.xattrs)),
      open: (id) => Effect.map(this.get(id), (blob) => this.open(boot, id, blob)),
      delete: (id) => this.change(boot, "delete", () => Effect.flatMap(this.get(id), (blob) => this.remove(id, blob)))
    }
  }

  private create(
    sizeBytes: number,
    xattrs: ReadonlyArray<readonly [string, Uint8Array]>
  ): Effect.Effect<number, SpdkError> {
    const clusters = Math.ceil(sizeBytes / clusterBytes)
    if (this.usedClusters + clusters > this.totalClusters) {
      return Effect.fail(new SpdkError({ reason: new NoSpace({ operation: "create" }) }))
    }
    const durable = new Uint8Array(clusters * clusterBytes)
    for (let at = 0; at < durable.length; at += clusterBytes) {
      const old = this.freed.pop()
      if (old !== undefined) durable.set(old, at)
    }
    // The lowest that is free, as a blobstore does it.
    let id = 2 ** 32 + 1
    while (this.blobs.has(id)) id++
    const named = new Map(xattrs)
    this.blobs.set(id, {
      durable,
      cached: durable.slice(),
      dirty: new Set(),
      durableXattrs: named,
      xattrs: new Map(named),
      opens: 0
    })
    return Effect.succeed(id)
  }

  private remove(id: number, blob: Stored): Effect.Effect<void, SpdkError> {
    if (blob.opens > 0) return Effect.fail(new SpdkError({ reason: new Busy({ operation: "delete" }) }))
    this.blobs.delete(id)
    for (let at = 0; at < blob.cached.length; at += clusterBytes) {
      this.freed.push(blob.cached.slice(at, at + clusterBytes))
    }
    return Effect.void
  }

  private open(boot: number, id: number, blob: Stored): KvBlob {
    blob.opens++
    let closed = false
    return {
      id,
      sizeBytes: blob.cached.length,
      read: (offsetBytes, lengthBytes) =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => blob.cached.slice(offsetBytes, offsetBytes + lengthBytes))
        ),
      write: (offsetBytes, bytes) =>
        this.change(boot, "write", () =>
          Effect.sync(() => {
            blob.cached.set(bytes, offsetBytes)
            const last = Math.ceil((offsetBytes + bytes.length) / blockBytes)
            for (let block = Math.floor(offsetBytes / blockBytes); block < last; block++) blob.dirty.add(block)
          })
        ),
      sync: this.change(boot, "sync", () =>
        Effect.sync(() => {
          this.syncs++
          for (const other of this.blobs.values()) {
            for (const block of other.dirty) {
              const from = block * blockBytes
              other.durable.set(other.cached.subarray(from, from + blockBytes), from)
            }
            other.dirty.clear()
          }
          blob.durableXattrs = new Map(blob.xattrs)
        })
      ),
      setXattr: (name, value) => Effect.sync(() => void blob.xattrs.set(name, value)),
      removeXattr: (name) => Effect.sync(() => void blob.xattrs.delete(name)),
      close: Effect.sync(() => {
        if (!closed) blob.opens--
        closed = true
      })
    }
  }
}

export const smallLimits = { segmentBytes: clusterBytes, largeValueBytes: 8192, garbageRatio: 0.5 }
