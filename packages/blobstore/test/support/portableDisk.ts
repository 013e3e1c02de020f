/** Disks in memory for the portable driver, and what its tests say often. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { EngineService } from "@effect-spdk/core/Engine"
import * as Spdk from "@effect-spdk/core/Spdk"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type {
  BlobId,
  DriverBlobInfo,
  DriverCreateOptions,
  DriverInitOptions,
  DriverLoadOptions,
  StoreDriver
} from "../../src/internal/driver.ts"
import { portableDriver } from "../../src/internal/portable/driver.ts"

export const mebibyte = 1024 * 1024
export const clusterBytes = 65_536

export const initOptions: DriverInitOptions = {
  clusterSizeBytes: clusterBytes,
  metadataPages: undefined,
  type: "",
  clearMethod: "unmap"
}

export const loadOptions: DriverLoadOptions = { type: "", forceRecover: false, grow: false, onProgress: undefined }

export const createOptions: DriverCreateOptions = {
  clusters: 0,
  thin: false,
  clearMethod: "default",
  extentTable: true,
  xattrs: new Map(),
  externalSnapshot: undefined
}

export const embedded = Spdk.layerEmbedded()

let count = 0
export const malloc = (sizeBytes = 16 * mebibyte, name = `disk${count++}`) =>
  Effect.flatMap(Bdev.createMalloc({ name, size: sizeBytes, blockSize: 512 }), (made) =>
    Bdev.open(made, { write: true })
  )

export const init = (bdev: Bdev.Bdev, options: Partial<DriverInitOptions> = {}) =>
  portableDriver.init(bdev, { ...initOptions, ...options })

export const load = (bdev: Bdev.Bdev, options: Partial<DriverLoadOptions> = {}) =>
  portableDriver.load(bdev, { ...loadOptions, ...options })

export const create = (store: StoreDriver, options: Partial<DriverCreateOptions> = {}) =>
  store.create({ ...createOptions, ...options })

export const open = (store: StoreDriver, id: BlobId) => store.open(id, { clearMethod: "default" })

export const pattern = (length: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  const words = new Uint32Array(bytes.buffer, 0, Math.floor(length / 4))
  for (let i = 0, state = (seed + 1) * 0x9e3779b1; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    words[i] = state
  }
  return bytes
}

type Io<A> = Effect.Effect<A, SpdkError, EngineService>

const withBuffer = <A, E>(length: number, use: (buffer: DmaBuffer.DmaBuffer) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(DmaBuffer.make(length), use))

export const write = (
  blob: Effect.Success<ReturnType<typeof open>>,
  offsetBytes: number,
  bytes: Uint8Array
): Io<void> =>
  withBuffer(bytes.length, (buffer) => {
    buffer.bytes.set(bytes)
    return blob.io.write(offsetBytes, buffer)
  })

export const read = (
  blob: Effect.Success<ReturnType<typeof open>>,
  offsetBytes: number,
  length: number
): Io<Uint8Array> =>
  withBuffer(length, (buffer) => Effect.map(blob.io.read(offsetBytes, buffer), () => buffer.bytes.slice()))

/** All of a blob, opened for that. */
export const contents = (store: StoreDriver, id: BlobId): Io<Uint8Array> =>
  Effect.acquireUseRelease(
    open(store, id),
    (blob) =>
      Effect.flatMap(Effect.all([blob.info, store.info]), ([{ clusters }, { clusterSizeBytes }]) =>
        clusters === 0 ? Effect.succeed(new Uint8Array(0)) : read(blob, 0, clusters * clusterSizeBytes)
      ),
    (blob) => Effect.ignore(blob.close)
  )

export interface SeenBlob extends DriverBlobInfo {
  readonly xattrs: Record<string, string>
  readonly clones: ReadonlyArray<BlobId>
  readonly bytes: string
}

/** Everything a store tells, to compare two of them. */
export const see = Effect.fnUntraced(function* (store: StoreDriver) {
  const blobs: Array<SeenBlob> = []
  for (const id of yield* store.ids) {
    const blob = yield* open(store, id)
    const xattrs = Object.fromEntries(
      [...(yield* blob.xattrs)].map(([name, value]) => [name, Buffer.from(value).toString("hex")] as const)
    )
    const info = yield* blob.info
    yield* blob.close
    const clones = yield* store.clones(id)
    blobs.push({ ...info, xattrs, clones, bytes: digest(yield* contents(store, id)) })
  }
  return { info: yield* store.info, superBlob: yield* store.superBlob, blobs }
})

const digest = (bytes: Uint8Array): string => `${bytes.length}:${createHash("sha1").update(bytes).digest("hex")}`

export const run = <A, E>(
  body: Effect.Effect<A, E, EngineService | Scope.Scope | Layer.Success<typeof embedded>>
): Effect.Effect<A, E | Layer.Error<typeof embedded>> => Effect.provide(Effect.scoped(body), embedded)
