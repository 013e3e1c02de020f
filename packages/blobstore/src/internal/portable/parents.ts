/** What lies under a blob, and taking it away: inflate, decouple, other parents, copies of what is the blob's own. */
import * as Bdev from "@effect-spdk/core/Bdev"
import type { IoError } from "@effect-spdk/core/Bdev"
import { AlreadyExists, invalid, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { BlobId, Progress } from "../driver.ts"
import * as L from "../format/layout.ts"
import { encodeText } from "../format/text.ts"
import { type Backing, type BlobState, externalName, type ParentId } from "./blob.ts"
import { allocate } from "./clusters.ts"
import { noSpace, notPermitted, refused } from "./errors.ts"
import { exclusively } from "./exclusively.ts"
import { closeBlob, externalBdev, letGo, openBlob, openFitting } from "./open.ts"
import { persist, settle } from "./persist.ts"
import { locked } from "./snapshot.ts"
import type { Store } from "./store.ts"

const { externalSnapshot, snapshot: parentXattr } = L.internalXattr

/** `all`: every cluster, and the blob is not thin any more. Else those that the parent itself has. */
export const inflate = (store: Store, id: BlobId, all: boolean): Effect.Effect<void, SpdkError> => {
  const operation = all ? "Blobstore.inflate" : "Blobstore.decouple"
  return locked(
    store,
    operation,
    id,
    Effect.fnUntraced(function* (blob: BlobState) {
      if (blob.parentId === undefined && !all) {
        return yield* Effect.fail(refused(operation, store.nameOf(id), "id", "names a blob without a parent"))
      }
      if (!blob.isThin) return
      // What an external snapshot has cannot be asked.
      const whole = all || blob.parentId === "external"
      for (;;) {
        yield* fill(store, blob, operation, whole)
        // An unmap that had begun may have given a cluster back meanwhile.
        const isDone = yield* exclusively(
          store,
          blob,
          Effect.suspend(() => {
            if (missing(blob, whole) > 0) return Effect.succeed(false)
            return Effect.as(whole ? standAlone(store, blob) : skipParent(store, blob), true)
          })
        )
        if (isDone) return
      }
    })
  )
}

const missing = (blob: BlobState, whole: boolean): number => {
  let needed = 0
  for (let i = 0; i < blob.clusterCount; i++) if (needsCluster(blob, i, whole)) needed++
  return needed
}

const fill = Effect.fnUntraced(function* (store: Store, blob: BlobState, operation: string, whole: boolean) {
  const needed = missing(blob, whole)
  if (needed > store.freeClusters) {
    return yield* Effect.fail(noSpace(operation, `${needed} clusters are needed and ${store.freeClusters} free`))
  }
  for (let i = 0; i < blob.clusterCount; i++) {
    if (needsCluster(blob, i, whole)) yield* blob.gate.shared(() => allocate(store, blob, i, undefined))
  }
})

const needsCluster = (blob: BlobState, index: number, whole: boolean): boolean => {
  if (blob.clusters[index] !== 0) return false
  if (whole) return true
  return blob.backing?._tag === "Blob" && (blob.backing.blob.clusters[index] ?? 0) !== 0
}

interface Under {
  readonly parentId: ParentId
  readonly backing: Backing | undefined
  /** The name of the external snapshot, where it is one. */
  readonly external?: Uint8Array | undefined
  readonly thin: boolean
}

/** Writes what lies under the blob from now on. Memory follows the device: until it is there, nothing has changed. */
const putUnder = Effect.fnUntraced(function* (store: Store, blob: BlobState, under: Under) {
  yield* settle(store, blob)
  const { changes, dirty, invalidFlags } = blob
  const before = { invalidFlags, internalXattrs: new Map(blob.internalXattrs) }
  blob.removeInternal(parentXattr)
  blob.removeInternal(externalSnapshot)
  if (typeof under.parentId === "number") blob.setInternal(parentXattr, under.parentId)
  if (under.external !== undefined) blob.setInternal(externalSnapshot, under.external)
  blob.setFlag(L.invalidFlag.externalSnapshot, under.external !== undefined)
  blob.setFlag(L.invalidFlag.thin, under.thin)
  yield* Effect.onError(persist(store, blob), () =>
    Effect.sync(() => {
      Object.assign(blob, before)
      blob.dirty = dirty || blob.unsure || blob.changes !== changes
    })
  )
  store.removeClone(blob)
  const old: Backing | undefined = blob.backing
  blob.parentId = under.parentId
  blob.backing = under.backing
  store.addClone(blob)
  if (old !== undefined) yield* letGo(store, old)
})

const standAlone = (store: Store, blob: BlobState): Effect.Effect<void, IoError> =>
  putUnder(store, blob, { parentId: undefined, backing: undefined, thin: false })

/** The parent's parent becomes the blob's. */
const skipParent = Effect.fnUntraced(function* (store: Store, blob: BlobState) {
  const parent = blob.backing?._tag === "Blob" ? blob.backing.blob : undefined
  if (typeof parent?.parentId === "number") {
    const below = yield* openBlob(store, parent.parentId)
    const under: Under = { parentId: below.id, backing: { _tag: "Blob", blob: below }, thin: true }
    return yield* Effect.onError(putUnder(store, blob, under), () => Effect.ignore(closeBlob(store, below)))
  }
  const external = parent?.parentId === "external" ? parent.internalXattrs.get(externalSnapshot) : undefined
  if (external === undefined) {
    return yield* putUnder(store, blob, { parentId: undefined, backing: undefined, thin: true })
  }
  yield* putExternal(store, blob, external)
})

/** Opens the bdev and puts it under the blob. */
const putExternal = Effect.fnUntraced(function* (store: Store, blob: BlobState, external: Uint8Array) {
  const opened = yield* externalBdev(store, blob.id, externalName(external))
  const under: Under = { parentId: "external", backing: { _tag: "External", ...opened }, external, thin: true }
  yield* Effect.onError(putUnder(store, blob, under), () => Scope.close(opened.scope, Exit.void))
})

const exists = (operation: string, resource: string, detail: string): SpdkError<AlreadyExists> =>
  new SpdkError({ reason: new AlreadyExists({ operation, resource, detail }) })

export const setParent = (store: Store, id: BlobId, parent: BlobId): Effect.Effect<void, SpdkError> => {
  const operation = "Blobstore.setParent"
  if (id === parent) return Effect.fail(refused(operation, store.nameOf(id), "snapshot", "is the blob itself"))
  if (store.clones.get(parent)?.includes(id) === true) {
    return Effect.fail(exists(operation, store.nameOf(id), "the snapshot is its parent already"))
  }
  return locked(store, operation, id, (blob) => {
    if (!blob.isThin) return Effect.fail(refused(operation, store.nameOf(id), "id", "names a blob that is not thin"))
    return locked(store, operation, parent, (below) => {
      const rule = cannotBeParent(store, blob, below)
      if (rule !== undefined) return Effect.fail(refused(operation, store.nameOf(id), "snapshot", rule))
      const put = Effect.suspend(() => {
        // Held by the blob from now on.
        below.openCount++
        const under: Under = { parentId: parent, backing: { _tag: "Blob", blob: below }, thin: true }
        return Effect.onError(putUnder(store, blob, under), () => Effect.sync(() => void below.openCount--))
      })
      return exclusively(store, blob, put)
    })
  })
}

const cannotBeParent = (store: Store, blob: BlobState, below: BlobState): string | undefined => {
  if (!store.clones.has(below.id)) return "is not a snapshot"
  if (blob.clusterCount !== below.clusterCount) return "has a different number of clusters"
  for (let under: BlobState = below; under.backing?._tag === "Blob"; under = under.backing.blob) {
    if (under.backing.blob === blob) return "lies on top of the blob"
  }
  return undefined
}

export const setExternalParent = (store: Store, id: BlobId, name: string): Effect.Effect<void, SpdkError> => {
  const operation = "Blobstore.setExternalParent"
  const external = encodeText(name)
  const check = Effect.scoped(openFitting(store, operation, store.nameOf(id), "bdev", name))
  const put = locked(store, operation, id, (blob) => {
    if (blob.parentId === "external" && externalName(blob.internalXattrs.get(externalSnapshot)) === name) {
      return Effect.fail(exists(operation, store.nameOf(id), "the external snapshot is its parent already"))
    }
    return blob.isThin
      ? exclusively(store, blob, putExternal(store, blob, external))
      : Effect.fail(refused(operation, store.nameOf(id), "id", "names a blob that is not thin"))
  })
  // The bdev comes first, as with SPDK.
  return Effect.andThen(check, put)
}

/** The blob is read-only, so its clusters stay what they are. */
export const shallowCopy = (
  store: Store,
  id: BlobId,
  name: string,
  onProgress: Progress
): Effect.Effect<void, SpdkError> => {
  const operation = "Blobstore.shallowCopy"
  return locked(
    store,
    operation,
    id,
    Effect.fnUntraced(
      function* (blob: BlobState) {
        if (!blob.dataReadOnly && !blob.mdReadOnly) {
          return yield* Effect.fail(notPermitted(operation, store.nameOf(id), "the blob is not read-only"))
        }
        const target = yield* Bdev.open(name, { write: true })
        if (blob.clusterCount * store.clusterBytes > target.sizeBytes) {
          return yield* Effect.fail(invalid(operation, "bdev", "is smaller than the blob", name))
        }
        if (store.device.bdev.blockSize % target.blockSize !== 0) {
          const rule = `has blocks of ${target.blockSize} bytes, which do not fit`
          return yield* Effect.fail(invalid(operation, "bdev", rule, name))
        }
        let copied = 0
        for (let i = 0; i < blob.clusterCount; i++) {
          const cluster = blob.clusters[i] ?? 0
          if (cluster === 0) continue
          yield* copyCluster(store, cluster * store.clusterBytes, target, i * store.clusterBytes)
          onProgress(++copied)
        }
        if (target.supports("flush")) yield* target.flush()
      },
      (effect) => Effect.scoped(effect).pipe(Effect.provide(store.services))
    )
  )
}

const copyCluster = (store: Store, from: number, target: Bdev.Bdev, to: number): Effect.Effect<void, IoError> =>
  store.device.withChunk((chunk) => {
    const next = (at: number): Effect.Effect<void, IoError> => {
      if (at >= store.clusterBytes) return Effect.void
      const part = chunk.slice(0, Math.min(chunk.byteLength, store.clusterBytes - at))
      return store.device.bdev.read(from + at, part).pipe(
        Effect.andThen(target.write(to + at, part)),
        Effect.flatMap(() => next(at + part.byteLength))
      )
    }
    return next(0)
  })
