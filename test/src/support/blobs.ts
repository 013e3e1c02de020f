/** What the blob suites share: a store on a device of the test's own, and the drivers they run with. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Capabilities, EngineLayer } from "./engines.ts"
import { fresh } from "./harness.ts"

/** A suite of blobs: which driver it runs with, on which engine. */
export type BlobSuite = (
  name: string,
  layer: EngineLayer,
  capabilities: Capabilities,
  driver: Blobstore.DriverKind
) => void

/** Registers suites one after the other, in one process. */
export const withDriver =
  (driver: Blobstore.DriverKind, suites: Readonly<Record<string, BlobSuite>>) =>
  (name: string, layer: EngineLayer, capabilities: Capabilities): void => {
    for (const [what, suite] of Object.entries(suites)) suite(`${name} ${what}`, layer, capabilities, driver)
  }

export const KiB = 1024
export const MiB = 1024 * 1024

export interface DeviceOptions {
  readonly sizeBytes?: number
  readonly blockSize?: number
}

/** A malloc bdev, opened for writing. Default: 8 MiB in blocks of 512 bytes. */
export const device = (options: DeviceOptions = {}) =>
  Effect.gen(function* () {
    const blockSize = options.blockSize ?? 512
    const numBlocks = (options.sizeBytes ?? 8 * MiB) / blockSize
    const name = yield* Bdev.createMalloc({ name: fresh("disk"), blockSize, numBlocks })
    return yield* Bdev.open(name, { write: true })
  })

/** Clusters of 64 KiB unless told otherwise: small, so that a small device has many. */
export const smallClusters = 64 * KiB

export const init = (bdev: Bdev.Bdev, driver: Blobstore.DriverKind, options: Blobstore.InitOptions = {}) =>
  Blobstore.init({ driver, clusterSize: smallClusters, ...options }).pipe(Effect.provideService(Bdev.Bdev, bdev))

export const load = (bdev: Bdev.Bdev, driver: Blobstore.DriverKind, options: Blobstore.LoadOptions = {}) =>
  Blobstore.load({ driver, ...options }).pipe(Effect.provideService(Bdev.Bdev, bdev))

/** A fresh store on a device of its own. */
export const freshStore = (
  driver: Blobstore.DriverKind,
  options: DeviceOptions & { readonly store?: Blobstore.InitOptions } = {}
) => Effect.flatMap(device(options), (bdev) => init(bdev, driver, options.store))

/** Runs with a resource and closes its scope before it goes on. */
export const during = <A, B, E, E2, R, R2>(
  acquire: Effect.Effect<A, E, R>,
  use: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2, Exclude<R | R2, Scope.Scope>> => Effect.scoped(Effect.flatMap(acquire, use))

/** A scope of one's own: the resource, and what closes it. */
export const closable = <A, E, R>(acquire: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const scope = yield* Effect.flatMap(Effect.scope, Scope.fork)
    const resource = yield* Scope.provide(acquire, scope)
    return { resource, close: Scope.close(scope, Exit.void) }
  })

/** A DMA buffer with these bytes. */
export const filled = (bytes: Uint8Array) =>
  Effect.map(DmaBuffer.make(bytes.length), (buffer) => {
    buffer.bytes.set(bytes)
    return buffer
  })

export const zeroes = (length: number): Uint8Array => new Uint8Array(length)
