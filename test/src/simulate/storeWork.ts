/** Operations on a store and on what lies under its blobs, each beside the model. */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import type { EngineService } from "@effect-spdk/core/Engine"
import type { SimulatedDisk } from "@effect-spdk/core/SimulatedDisk"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { externalParent, type ModelBlob, together, sectorMatches } from "./blobModel.ts"
import type { BlobWork } from "./blobWork.ts"
import type { Action, BdevRole } from "./plan.ts"
import { endOf } from "./violation.ts"

/** The stamp of the first sector of the disk that lies under blobs. */
export const outerStamp = 2 ** 30
export const outerClusters = 4

/** What it holds, for good. */
export const outerContents = (lengthBytes: number): Uint8Array => {
  const bytes = new Uint8Array(lengthBytes)
  for (let i = 0; i * Model.stampBytes < lengthBytes; i++) {
    bytes.set(Model.stamped(Model.stampBytes, outerStamp + i), i * Model.stampBytes)
  }
  return bytes
}

type Performed = Effect.Effect<void, never, EngineService>

export class StoreWork {
  private readonly work: BlobWork
  private readonly bdev: Bdev.Bdev
  /** Of the copies; undefined where there are no other disks. */
  private readonly target: SimulatedDisk | undefined
  private isCopying = false

  constructor(work: BlobWork, bdev: Bdev.Bdev, target: SimulatedDisk | undefined) {
    this.work = work
    this.bdev = bdev
    this.target = target
  }

  perform(action: Action): Performed {
    const { work } = this
    switch (action._tag) {
      case "SetReadOnly":
        return work.onBlob(action.label, action._tag, (blob) => this.setReadOnly(blob, action.syncs))
      case "SetSuper":
        return action.label === 0
          ? this.setSuper(0)
          : work.onBlob(action.label, action._tag, (blob) => this.setSuper(blob.id ?? 0))
      case "GetSuper":
        return this.getSuper
      case "OpenWith":
        return work.onBlob(action.label, action._tag, (blob) => this.openWith(blob, action.clearMethod))
      case "SetParent":
        return work.onBlob(action.label, action._tag, (blob) =>
          work.onBlob(action.to, action._tag, (below) => this.setParent(blob, below))
        )
      case "CreateExternal":
        return this.createExternal(action.label, action.clusters)
      case "SetExternalParent":
        return work.onBlob(action.label, action._tag, (blob) => this.setExternalParent(blob, action.bdev))
      case "ShallowCopy":
        return work.onBlob(action.label, action._tag, (blob) => this.shallowCopy(blob, action.bdev))
      case "SecondStore":
        return this.secondStore
      case "Repair":
        return this.repair
      case "Grow":
        return this.grow
      default:
        return work.perform(action)
    }
  }

  private setReadOnly(blob: ModelBlob, syncs: boolean): Performed {
    return Effect.suspend(() => {
      const { work } = this
      const begin = work.model.time.next()
      const registers = blob.registers()
      const change = blob.readOnly.begin(true)
      // Without a sync it is there some time later.
      const succeed = syncs ? change.succeed : change.fail
      return work.attempt(
        `set ${blob.label} read-only${syncs ? "" : ", without a sync"}`,
        work.opened(blob, (open) => Effect.andThen(open.setReadOnly, syncs ? open.sync : Effect.void)),
        { ...change, succeed, refuse: change.fail },
        {
          onSuccess: () => {
            if (!syncs) return
            for (const register of registers) register.durableSince(begin)
            blob.readOnly.durableSince(work.model.time.next())
          }
        }
      )
    })
  }

  private setSuper(id: number): Performed {
    return Effect.suspend(() => {
      const { model, store } = this.work
      return this.work.attempt(
        `set the super blob to ${id}`,
        store.setSuperBlob(id === 0 ? undefined : id),
        model.superBlob.begin(id),
        { onSuccess: () => model.superBlob.durableSince(model.time.next()) }
      )
    })
  }

  readonly getSuper: Performed = Effect.suspend(() => {
    const { model, store, watch } = this.work
    const begin = model.time.next()
    return this.work.attempt(
      "get the super blob",
      Effect.map(store.superBlob, (id = 0) => {
        const allowed = model.superBlob.possible(begin)
        if (model.superBlob.found(id, begin)) return
        watch.violated(`the super blob is ${id}, and not ${allowed.join(" or ")}`)
      })
    )
  })

  /** Other than it is open with: refused. */
  private openWith(blob: ModelBlob, clearMethod: "none" | "unmap" | "write_zeroes"): Performed {
    return Effect.suspend(() => {
      const { work } = this
      blob.calls++
      return work
        .attempt(
          `open ${blob.label} with ${clearMethod}`,
          Effect.scoped(
            Effect.flatMap(work.store.open(blob.id ?? 0, { clearMethod }), (open) =>
              Effect.andThen(open.xattrs.entries, Effect.sleep("200 micros"))
            )
          )
        )
        .pipe(work.called(blob))
    })
  }

  /** What the blob has no cluster for is the other's content from now on. */
  private setParent(blob: ModelBlob, below: ModelBlob): Performed {
    return Effect.suspend(() => {
      below.calls++
      return this.putOver(
        blob,
        `set the parent of ${blob.label} to ${below.label}`,
        this.work.store.setParent(blob.id ?? 0, below.id ?? 0),
        below.label,
        (i) => below.sectors[i]?.possible() ?? [Model.zeroStamp]
      ).pipe(Effect.ensuring(Effect.sync(() => void below.calls--)))
    })
  }

  private putOver(
    blob: ModelBlob,
    text: string,
    effect: Effect.Effect<void, unknown>,
    parent: number,
    contents: (index: number) => ReadonlyArray<number>
  ): Performed {
    const { model } = this.work
    const lineage = model.lineage.begin()
    blob.calls++
    blob.hasParent = true
    const change = together(
      model.lineage
        .above(blob)
        .flatMap(({ sectors }) => sectors.flatMap((sector, i) => contents(i).map((stamp) => sector.begin(stamp))))
    )
    // What it has clusters for stays.
    return this.work
      .attempt(
        text,
        effect,
        { ...change, succeed: change.fail },
        {
          onSuccess: () => lineage(() => (blob.parent = parent)),
          onFailure: (_, isRefused) => lineage(isRefused ? undefined : "unknown")
        }
      )
      .pipe(this.work.called(blob))
  }

  /** Of a sector of the disk that lies under blobs. */
  private outerAt(index: number): number {
    return index < outerClusters * this.work.model.sectorsPerCluster ? outerStamp + index : Model.zeroStamp
  }

  private createExternal(label: number, clusters: number): Performed {
    return Effect.suspend(() => {
      const { model, store } = this.work
      if (model.blobs.has(label)) return Effect.void
      const blob = model.add(label, clusters, true)
      blob.hasParent = true
      blob.parent = externalParent
      blob.sectors = blob.sectors.map((_, i) => Model.makeRegister(model.time, [this.outerAt(i)], sectorMatches))
      return this.work.attempt(
        `create ${label} of ${clusters} over a bdev`,
        Effect.map(store.createId({ clusters, externalSnapshot: "outer", xattrs: { label: String(label) } }), (id) => {
          blob.id = id
        }),
        blob.exists.begin(true),
        { onSuccess: () => blob.exists.durableSince(model.time.next()) }
      )
    })
  }

  private nameOf(role: BdevRole): string {
    return role === "disk" ? this.bdev.name : role
  }

  private setExternalParent(blob: ModelBlob, role: BdevRole): Performed {
    return Effect.suspend(() => {
      const text = `put ${blob.label} over the bdev ${role}`
      const put = Effect.map(this.work.store.setExternalParent(blob.id ?? 0, this.nameOf(role)), () => {
        if (role !== "outer") this.work.watch.violated(`${text} succeeded`)
      })
      return this.putOver(blob, text, put, externalParent, (i) => [this.outerAt(i)])
    })
  }

  /** What is the blob's own is in the copy, and the rest of that is what it was. */
  private shallowCopy(blob: ModelBlob, role: BdevRole): Performed {
    return Effect.suspend(() => {
      const { target, work } = this
      if (this.isCopying || target === undefined) return Effect.void
      const { model, watch } = work
      this.isCopying = true
      const text = `copy ${blob.label} to ${role}`
      const before = Model.stampsOf(target.contents())
      const begin = model.time.next()
      const allowed = blob.sectors.map((sector) => sector.possible(begin))
      let own: ReadonlySet<number> = new Set()
      let last = { copiedClusters: 0, totalClusters: 0 }
      const copy = work.opened(blob, (open) =>
        Effect.andThen(
          Effect.map(ownClusters(open), (clusters) => (own = clusters)),
          Stream.runForEach(work.store.shallowCopy(blob.id ?? 0, this.nameOf(role)), (progress) =>
            Effect.sync(() => {
              if (progress.copiedClusters < last.copiedClusters) watch.violated(`${text} goes back`)
              last = progress
            })
          )
        )
      )
      const compare = (isWhole: boolean) => {
        const after = Model.stampsOf(isWhole ? target.durableContents() : target.contents())
        for (const [i, stamp] of after.entries()) {
          const isOwn = own.has(Math.floor(i / model.sectorsPerCluster))
          const matches = allowed[i]?.some((one) => one === stamp || one < 0) === true
          if (matches || (stamp === before[i] && !(isWhole && isOwn))) continue
          watch.violated(`${text}: sector ${i} has ${stamp}, was ${before[i]}, and is to be ${allowed[i]?.join()}`)
        }
      }
      return work
        .attempt(text, copy, undefined, {
          onSuccess: () => {
            if (role !== "target") watch.violated(`${text} succeeded`)
            if (last.copiedClusters !== last.totalClusters) watch.violated(`${text} ended at ${last.copiedClusters}`)
            if (!blob.readOnly.possible(begin).includes(true)) watch.violated(`${text}, which is not read-only`)
            compare(true)
          },
          onFailure: () => compare(false)
        })
        .pipe(Effect.ensuring(Effect.sync(() => (this.isCopying = false))))
    })
  }

  /** Another handle of the same bdev gets no store. */
  private readonly secondStore: Performed = Effect.suspend(() =>
    this.refused(
      "a second store",
      Effect.scoped(
        Effect.flatMap(Bdev.open(this.bdev.name, { write: true }), (bdev) =>
          Effect.provideService(Blobstore.load(), Bdev.Bdev, bdev)
        )
      )
    )
  )

  /** Nobody repairs a store that is loaded. */
  private readonly repair: Performed = Effect.suspend(() =>
    this.refused("a repair of the store", Effect.provideService(Check.repair, Bdev.Bdev, this.bdev))
  )

  private refused<A, E, R>(text: string, effect: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> {
    const { watch } = this.work
    return this.work.attempt(
      text,
      Effect.onExit(effect, (exit) =>
        Effect.sync(() => {
          const end = exit._tag === "Success" ? "ok" : endOf(exit.cause)
          if (end !== "Busy" && end !== "interrupted" && !watch.hasFaults) watch.violated(`${text} ended with ${end}`)
        })
      )
    )
  }

  private readonly grow: Performed = Effect.suspend(() => {
    const { model, store } = this.work
    const clusters = Math.floor(this.bdev.sizeBytes / (model.sectorsPerCluster * Model.stampBytes))
    return this.work.attempt("grow", store.grow, model.clusters.begin(clusters), {
      onSuccess: () => model.clusters.durableSince(model.time.next())
    })
  })
}

const ownClusters = (open: Blob) =>
  Effect.gen(function* () {
    const clusters = new Set<number>()
    for (let at = 0; ;) {
      const first = yield* open.nextAllocated(at)
      if (Option.isNone(first)) return clusters
      clusters.add(Math.floor(first.value / open.clusterBytes))
      at = first.value + open.clusterBytes
    }
  })
