/** What the log needs of a blobstore. Between the two so that tests can pull the plug at every single write. */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import type * as Effect from "effect/Effect"

export interface KvBlob {
  readonly id: number
  readonly sizeBytes: number
  readonly read: (offsetBytes: number, lengthBytes: number) => Effect.Effect<Uint8Array, SpdkError>
  /** A write that is not a whole number of blocks reads and writes back the last one. */
  readonly write: (offsetBytes: number, bytes: Uint8Array) => Effect.Effect<void, SpdkError>
  /** What was written before, and the xattrs, survive a power cut after this. */
  readonly sync: Effect.Effect<void, SpdkError>
  readonly setXattr: (name: string, value: Uint8Array) => Effect.Effect<void, SpdkError>
  readonly removeXattr: (name: string) => Effect.Effect<void, SpdkError>
  readonly close: Effect.Effect<void>
}

export interface KvBlobs {
  /** What the device writes at once. */
  readonly blockBytes: number
  readonly clusterBytes: number
  /** All blobs, of whomever. */
  readonly ids: Effect.Effect<ReadonlyArray<number>, SpdkError>
  /** Rounds up to clusters. Durable, with its xattrs, when it returns. */
  readonly create: (
    sizeBytes: number,
    xattrs: ReadonlyArray<readonly [string, Uint8Array]>
  ) => Effect.Effect<number, SpdkError>
  readonly xattrs: (id: number) => Effect.Effect<ReadonlyMap<string, Uint8Array>, SpdkError>
  readonly open: (id: number) => Effect.Effect<KvBlob, SpdkError>
  /** Durable when it returns. Fails while the blob is open. */
  readonly delete: (id: number) => Effect.Effect<void, SpdkError>
}
