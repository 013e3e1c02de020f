/** Making a store, and loading one: after a clean unload by its masks, else by what its metadata says. */
import type { Bdev } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { EngineService } from "@effect-spdk/core/Engine"
import { invalid, SpdkError, WrongType } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { DriverInitOptions, DriverLoadOptions } from "../driver.ts"
import type { BitSet } from "../format/bitSet.ts"
import * as L from "../format/layout.ts"
import type { MaskType } from "../format/layout.ts"
import { decodeMask } from "../format/mask.ts"
import {
  decodeSuperBlock,
  encodeSuperBlock,
  layoutStore,
  type SuperBlock,
  totalClusters
} from "../format/superBlock.ts"
import { Device } from "./device.ts"
import { corrupted, noMemory, noSpace } from "./errors.ts"
import { grow, hasGrown } from "./grow.ts"
import { pageOf } from "./open.ts"
import { fixLeftover, fixResized } from "./recover.ts"
import { scan, type ScannedStore } from "./scan.ts"
import { Store } from "./store.ts"

const maxChunkBytes = 1024 * 1024
const chunks = 4

/** Opens nothing that outlives a failure. */
const withScope = <E>(
  make: (scope: Scope.Closeable) => Effect.Effect<Store, E, EngineService>
): Effect.Effect<Store, E, EngineService> =>
  Effect.flatMap(Scope.make(), (scope) =>
    Effect.tap(make(scope), (store) => counted(store, scope)).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
  )

/** Among what the engine holds, until the store is unloaded. */
const counted = (store: Store, scope: Scope.Closeable): Effect.Effect<void, never, EngineService> =>
  Effect.flatMap(EngineService, ({ loadedInTypeScript }) => {
    loadedInTypeScript.add(store)
    return Scope.addFinalizer(
      scope,
      Effect.sync(() => loadedInTypeScript.delete(store))
    )
  })

const openDevice = (bdev: Bdev, superBlock: SuperBlock, scope: Scope.Closeable) => {
  const wanted = Math.max(superBlock.clusterSize, superBlock.mdLength * superBlock.mdPageSize)
  const lengthBytes = Math.min(maxChunkBytes, Math.ceil(wanted / superBlock.mdPageSize) * superBlock.mdPageSize)
  const alignment = Math.max(L.pageBytes, bdev.info.bufferAlignmentBytes)
  return DmaBuffer.pool({ lengthBytes, capacity: chunks, alignment }).pipe(
    Effect.provideService(Scope.Scope, scope),
    Effect.map((pool) => new Device(bdev, pool))
  )
}

export const init = (bdev: Bdev, options: DriverInitOptions): Effect.Effect<Store, SpdkError, EngineService> =>
  withScope(
    Effect.fnUntraced(function* (scope: Scope.Closeable) {
      const operation = "Blobstore.init"
      const { clearMethod, clusterSizeBytes, metadataPages, type } = options
      if (clusterSizeBytes < L.pageBytes || clusterSizeBytes % L.pageBytes !== 0) {
        const rule = `is not a multiple of ${L.pageBytes}`
        return yield* Effect.fail(invalid(operation, "clusterSizeBytes", rule, clusterSizeBytes))
      }
      if (bdev.sizeBytes < clusterSizeBytes) {
        return yield* Effect.fail(noSpace(operation, "the device is smaller than a cluster"))
      }
      const superBlock = layoutStore({
        deviceBytes: bdev.sizeBytes,
        clusterSize: clusterSizeBytes,
        mdPages: metadataPages,
        ioUnitSize: bdev.blockSize,
        mdPageSize: L.pageBytes,
        type
      })
      if (superBlock === undefined) {
        return yield* Effect.fail(noMemory(operation, "the metadata needs more clusters than the device has"))
      }
      const services = yield* Effect.context<EngineService>()
      const device = yield* openDevice(bdev, superBlock, scope)
      const metadataBytes = (superBlock.mdStart + superBlock.mdLength) * superBlock.mdPageSize
      yield* device.zero(0, metadataBytes)
      yield* device.clear(clearMethod, metadataBytes, bdev.sizeBytes - metadataBytes)
      // Zeroes that come after the super block would take it away.
      yield* device.flush
      const superBytes = encodeSuperBlock(superBlock)
      yield* device.write(0, superBytes)
      yield* device.flush
      const store = new Store({ device, scope, services, superBlock, superBytes })
      const isZeroed = clearMethod === "write_zeroes" || (clearMethod === "unmap" && device.unmapsToZeroes)
      if (isZeroed) addFree(store, store.zeroed)
      store.isVerified = true
      return store
    })
  )

export const load = (bdev: Bdev, options: DriverLoadOptions): Effect.Effect<Store, SpdkError, EngineService> =>
  withScope(
    Effect.fnUntraced(function* (scope: Scope.Closeable) {
      const operation = "Blobstore.load"
      if (bdev.sizeBytes < L.pageBytes) {
        const damage = { where: "super block", rule: "does not fit on the device" }
        return yield* Effect.fail(corrupted(operation, bdev.name, damage))
      }
      const superBytes = yield* bdev.readBytes(0, L.pageBytes)
      const decoded = decodeSuperBlock(superBytes, bdev.sizeBytes)
      if (Result.isFailure(decoded)) return yield* Effect.fail(corrupted(operation, bdev.name, decoded.failure))
      const superBlock = decoded.success
      if (options.type !== "" && options.type !== superBlock.type) {
        const found = { operation, resource: bdev.name, expected: options.type, found: superBlock.type }
        return yield* Effect.fail(new SpdkError({ reason: new WrongType(found) }))
      }
      const services = yield* Effect.context<EngineService>()
      const device = yield* openDevice(bdev, superBlock, scope)
      // A process that was killed may have left what reads show and a power cut takes back: a deletion, for one, whose clusters
      // others get from here on.
      yield* device.flush
      const recovers = !superBlock.clean || options.forceRecover || superBlock.usedBlobIdMaskLength === 0
      const base = { device, scope, services, superBlock, superBytes }
      const store = new Store(recovers ? base : { ...base, ...(yield* readMasks(device, superBlock)) })
      const scanned = yield* scan(store, recovers, options.onProgress)
      const { leftovers, parents, resized } = scanned
      // Nobody knows what was written before the stop and never came to be a blob's.
      if (recovers) addFree(store, store.soiled)
      store.isVerified = recovers
      const kept = yield* Effect.forEach(
        leftovers.toSorted((a, b) => a.id - b.id),
        (leftover) => fixLeftover(store, leftover, scanned)
      )
      // Not those that are gone: their extent pages are the pages of the blobs they were snapshots of.
      const cutShort = resized.filter((id) => pageOf(store, id) !== undefined)
      // Before their clusters are given to anybody.
      yield* Effect.forEach(cutShort, (id) => fixResized(store, id), { discard: true })
      // What no leftover explains.
      if (scanned.sharedClusters.size > 0 || scanned.sharedPages.size > 0) yield* dispute(store, scanned)
      const all = [...parents, ...kept.flat()].toSorted((a, b) => a.id - b.id)
      for (const { id, parent } of all) store.addCloneOf(parent, id)
      if (options.grow && hasGrown(store)) yield* grow(store)
      return store
    })
  )

/** Blobs that both have a cluster can be read. Nobody gets it, and each recovery finds it again. */
const dispute = (store: Store, { sharedClusters, sharedPages }: ScannedStore): Effect.Effect<void> =>
  Effect.suspend(() => {
    store.disputed = sharedClusters
    store.disputedPages = sharedPages
    store.fail()
    const text = `${sharedClusters.size} clusters and ${sharedPages.size} metadata pages belong to more than one blob`
    return Effect.logWarning(`the blobstore on ${store.device.bdev.name} is damaged: ${text}`)
  })

const addFree = (store: Store, to: BitSet): void => {
  const { usedClusters } = store
  for (let i = usedClusters.firstClear(); i >= 0; i = usedClusters.firstClear(i + 1)) to.add(i)
}

const readMasks = Effect.fnUntraced(function* (device: Device, superBlock: SuperBlock) {
  const read = (start: number, pages: number, type: MaskType, bits: number) =>
    Effect.flatMap(device.read(start * superBlock.mdPageSize, pages * superBlock.mdPageSize), (bytes) => {
      const mask = decodeMask(bytes, type, bits)
      return Result.isSuccess(mask)
        ? Effect.succeed(mask.success)
        : Effect.fail(corrupted("Blobstore.load", device.bdev.name, mask.failure))
    })
  const { maskType } = L
  const { mdLength, usedBlobIdMaskLength, usedBlobIdMaskStart, usedClusterMaskLength, usedClusterMaskStart } =
    superBlock
  const { usedPageMaskLength, usedPageMaskStart } = superBlock
  return yield* Effect.all({
    usedPages: read(usedPageMaskStart, usedPageMaskLength, maskType.usedPages, mdLength),
    usedClusters: read(usedClusterMaskStart, usedClusterMaskLength, maskType.usedClusters, totalClusters(superBlock)),
    usedBlobIds: read(usedBlobIdMaskStart, usedBlobIdMaskLength, maskType.usedBlobIds, mdLength)
  })
})
