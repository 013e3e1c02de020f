/** The operations on blobs, each beside the model. */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import type { Blobstore } from "@effect-spdk/blobstore/Blobstore"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import type { EngineService } from "@effect-spdk/core/Engine"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type BlobModel, type ModelBlob, noValue, anyStamp, together } from "./blobModel.ts"
import type { Action } from "./plan.ts"
import { endOf, type Watch } from "./violation.ts"

const sector = Model.stampBytes

type RangeAction = Extract<Action, { readonly at: number }>

/** After these nothing has changed. */
const refusals = new Set([
  "Busy",
  "InvalidArgument",
  "NotFound",
  "NoSpace",
  "ReadOnly",
  "Released",
  "NotSupported",
  "PermissionDenied",
  "AlreadyExists"
])

/** What only a fault, or a consequence of one, explains. */
const faulty = new Set(["IoFailed", "DeviceRemoved", "TimedOut", "Aborted"])

export class BlobWork {
  readonly model: BlobModel
  private readonly watch: Watch
  private readonly store: Blobstore

  constructor(store: Blobstore, model: BlobModel, watch: Watch) {
    this.store = store
    this.model = model
    this.watch = watch
  }

  perform(action: Action): Effect.Effect<void, never, EngineService> {
    switch (action._tag) {
      case "Create":
        return this.create(action)
      case "Write":
      case "Zero":
      case "Unmap":
        return this.onBlob(action.label, action._tag, (blob) => this.write(blob, action))
      case "Read":
        return this.onBlob(action.label, "Read", (blob) => this.read(blob, action.at, action.length, action.vectored))
      case "Resize":
        return this.onBlob(action.label, "Resize", (blob) => this.resize(blob, action.clusters))
      case "Sync":
        return this.onBlob(action.label, "Sync", (blob) => this.sync(blob))
      case "SetXattr":
      case "RemoveXattr":
        return this.onBlob(action.label, action._tag, (blob) => this.setXattr(blob, action._tag === "SetXattr"))
      case "Snapshot":
      case "Clone":
        return this.onBlob(action.from, action._tag, (blob) => this.derive(blob, action.label, action._tag))
      case "Inflate":
      case "Decouple":
        return this.onBlob(action.label, action._tag, (blob) => this.detach(blob, action._tag))
      case "Delete":
        return this.onBlob(action.label, "Delete", (blob) => this.delete(blob))
      case "Hold":
        return this.onBlob(action.label, "Hold", (blob) =>
          this.attempt(
            `hold ${blob.label}`,
            this.opened(blob, () => Effect.sleep("1 millis"))
          )
        )
      case "Info":
        return this.onBlob(action.label, "Info", (blob) =>
          this.attempt(
            `info ${blob.label}`,
            this.opened(blob, (open) => Effect.andThen(open.info, this.store.info))
          )
        )
      case "List":
        return this.list
      default:
        return Effect.void
    }
  }

  private readonly list: Effect.Effect<void> = Effect.suspend(() => {
    const begin = this.model.time.next()
    return this.attempt(
      "list",
      Effect.map(Stream.runCollect(this.store.list), (ids) => {
        for (const blob of this.model.blobs.values()) {
          const { exists, id } = blob
          if (id === undefined || exists.possible(begin).includes(false)) continue
          if (!ids.includes(id)) this.watch.violated(`list does not have blob ${blob.label}`)
        }
      })
    )
  })

  private onBlob(
    label: number,
    what: string,
    use: (blob: ModelBlob) => Effect.Effect<void, never, EngineService>
  ): Effect.Effect<void, never, EngineService> {
    return Effect.suspend(() => {
      const blob = this.model.find(label)
      // An id may be another blob's once its own is deleted: nobody uses it while that is under way.
      const isUsable = blob !== undefined && !blob.isDeleting && (what !== "Delete" || blob.calls === 0)
      if (!isUsable) this.watch.log(`${what} ${label}: no such blob`)
      return isUsable ? use(blob) : Effect.void
    })
  }

  private opened<A, E, R>(blob: ModelBlob, use: (open: Blob) => Effect.Effect<A, E, R>) {
    blob.calls++
    return Effect.scoped(Effect.flatMap(this.store.open(blob.id ?? 0), use)).pipe(
      Effect.onExit((exit) => Effect.sync(() => this.closed(blob, exit))),
      this.called(blob)
    )
  }

  /** A close that cannot write the blob loses what was not synced, and says so. */
  private closed(blob: ModelBlob, exit: Exit.Exit<unknown, unknown>): void {
    if (Exit.isSuccess(exit) || !endOf(exit.cause).startsWith("unclosed")) return
    blob.size.crash()
    blob.xattr.crash()
    this.hasLost = true
  }

  private called(blob: ModelBlob) {
    return Effect.ensuring(Effect.sync(() => void blob.calls--))
  }

  /** Runs it, logs how it ended, and says what must not be. */
  private attempt<A, E, R>(
    text: string,
    effect: Effect.Effect<A, E, R>,
    change?: Model.Change,
    options: { readonly partial?: boolean; readonly onSuccess?: () => void } = {}
  ): Effect.Effect<void, never, R> {
    return Effect.suspend(() => {
      this.watch.log(`${text} ...`)
      // Who performs an action is uninterruptible, so that the model hears of every end.
      return Effect.map(Effect.exit(Effect.interruptible(effect)), (exit) => {
        if (Exit.isSuccess(exit)) {
          this.watch.log(`${text}: ok`)
          change?.succeed()
          options.onSuccess?.()
          return
        }
        const end = endOf(exit.cause)
        this.watch.log(`${text}: ${end}`)
        if (refusals.has(end) && options.partial !== true) change?.refuse()
        else change?.fail()
        if (end.startsWith("died") || end === "Corrupted") this.watch.violated(`${text} ended with ${end}`)
        else if (faulty.has(end) && !this.watch.hasFaults) {
          this.watch.violated(`${text} ended with ${end}, and nothing was made to fail`)
        }
      })
    })
  }

  private create(action: Extract<Action, { _tag: "Create" }>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { clusters, extentTable, label, padded, thin } = action
      if (this.model.blobs.has(label)) return Effect.void
      const blob = this.model.add(label, clusters, thin)
      const change = blob.exists.begin(true)
      const pad: Record<string, Uint8Array> = padded ? { pad: new Uint8Array(2500), more: new Uint8Array(2500) } : {}
      return this.attempt(
        `create ${label} ${thin ? "thin" : "thick"} of ${clusters}`,
        Effect.map(
          this.store.createId({ clusters, thin, extentTable, xattrs: { label: String(label), ...pad } }),
          (id) => {
            blob.id = id
          }
        ),
        change,
        { onSuccess: () => blob.exists.durableSince(this.model.time.next()) }
      )
    })
  }

  private delete(blob: ModelBlob): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.isDeleting = true
      const change = blob.exists.begin(false)
      // Whether it is gone is not known: its id may be another's.
      const fail = () => {
        change.fail()
        blob.id = undefined
      }
      return this.attempt(
        `delete ${blob.label}`,
        this.store.delete(blob.id ?? 0),
        { ...change, fail },
        {
          onSuccess: () => blob.exists.durableSince(this.model.time.next())
        }
      ).pipe(Effect.ensuring(Effect.sync(() => (blob.isDeleting = false))))
    })
  }

  private range(blob: ModelBlob, at: number, length: number): { readonly first: number; readonly count: number } {
    const size = blob.sectors.length
    if (size === 0) return { first: 0, count: 0 }
    const first = at % size
    return { first, count: Math.min(length, size - first) }
  }

  private write(blob: ModelBlob, action: RangeAction): Effect.Effect<void, never, EngineService> {
    return Effect.suspend(() => {
      const { first, count } = this.range(blob, action.at, action.length)
      if (count === 0) return Effect.void
      const kind = action._tag
      const stamp =
        kind === "Write" ? this.model.stamp() : kind === "Zero" || !blob.hasParent ? Model.zeroStamp : anyStamp
      const change = together(blob.sectors.slice(first, first + count).map((register) => register.begin(stamp)))
      // A snapshot that came in between has taken the clusters, and unmapping what is not the blob's own does nothing.
      const succeed = () => (kind === "Unmap" && blob.hasParent ? change.fail() : change.succeed())
      const offset = first * sector
      const length = count * sector
      return this.attempt(
        `${kind} ${blob.label} sectors ${first}+${count} stamp ${stamp}`,
        this.opened(blob, (open) =>
          kind === "Zero"
            ? open.writeZeroes(offset, length)
            : kind === "Unmap"
              ? open.unmap(offset, length)
              : action.vectored
                ? writeVectored(open, offset, Model.stamped(length, stamp))
                : open.writeBytes(offset, Model.stamped(length, stamp))
        ),
        { ...change, succeed },
        { partial: true }
      )
    })
  }

  private read(
    blob: ModelBlob,
    at: number,
    length: number,
    vectored: boolean
  ): Effect.Effect<void, never, EngineService> {
    return Effect.suspend(() => {
      const { first, count } = this.range(blob, at, length)
      if (count === 0) return Effect.void
      const begin = this.model.time.next()
      const registers = blob.sectors.slice(first, first + count)
      const text = `read ${blob.label} sectors ${first}+${count}`
      return this.attempt(
        text,
        Effect.map(
          this.opened(blob, (open) =>
            vectored ? readVectored(open, first * sector, count) : open.readBytes(first * sector, count * sector)
          ),
          (bytes) => this.compare(text, blob, first, registers, bytes, begin)
        )
      )
    })
  }

  /** Every sector that still is one of the blob's. */
  private compare(
    text: string,
    blob: ModelBlob,
    first: number,
    registers: ReadonlyArray<Model.Register<number>>,
    bytes: Uint8Array,
    begin: number
  ): void {
    Model.stampsOf(bytes).forEach((stamp, index) => {
      const register = registers[index]
      if (register === undefined || blob.sectors[first + index] !== register) return
      const allowed = register.possible(begin)
      if (register.found(stamp, begin)) return
      this.watch.violated(`${text}: sector ${first + index} has ${stamp}, and not one of ${[...allowed].join(", ")}`)
    })
  }

  private resize(blob: ModelBlob, clusters: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const change = blob.size.begin(clusters)
      const before = blob.sectors.length
      const after = clusters * this.model.sectorsPerCluster
      const lost = together(blob.sectors.slice(after).map((register) => register.begin(anyStamp)))
      const begin = this.model.time.next()
      const isShrink = after < before
      return this.attempt(
        `resize ${blob.label} to ${clusters}`,
        this.opened(blob, (open) => open.resize({ clusters })),
        together([change, lost]),
        {
          onSuccess: () => {
            if (isShrink) for (const register of blob.registers()) register.durableSince(begin)
            this.model.fit(blob, clusters, blob.thin && !blob.hasParent ? Model.zeroStamp : anyStamp)
          }
        }
      )
    })
  }

  private sync(blob: ModelBlob): Effect.Effect<void> {
    return Effect.suspend(() => {
      const begin = this.model.time.next()
      const registers = blob.registers()
      return this.attempt(
        `sync ${blob.label}`,
        this.opened(blob, (open) => open.sync),
        undefined,
        { onSuccess: () => registers.forEach((register) => register.durableSince(begin)) }
      )
    })
  }

  private setXattr(blob: ModelBlob, sets: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const value = sets ? this.model.stamp() : noValue
      return this.attempt(
        `${sets ? "set" : "remove"} xattr of ${blob.label}: ${value}`,
        this.opened(blob, (open) => (sets ? open.xattrs.set("value", String(value)) : open.xattrs.remove("value"))),
        blob.xattr.begin(value)
      )
    })
  }

  private derive(from: ModelBlob, label: number, kind: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.model.blobs.has(label) || (kind === "Clone" && !from.isReadOnly)) return Effect.void
      const begin = this.model.time.next()
      const blob = this.model.add(label, 0, true)
      blob.isReadOnly = kind === "Snapshot"
      blob.hasParent = true
      if (kind === "Snapshot") from.hasParent = true
      const change = blob.exists.begin(true)
      const size = blob.size.begin(0)
      size.refuse()
      from.calls++
      const finish = () => {
        from.calls--
        this.model.unfinished.delete(finish)
        this.model.copy(from, blob, begin)
        for (const clusters of from.size.possible(begin)) blob.size.begin(clusters).fail()
      }
      this.model.unfinished.add(finish)
      const options = { xattrs: { label: String(label) } }
      const make =
        kind === "Snapshot" ? this.store.snapshot(from.id ?? 0, options) : this.store.clone(from.id ?? 0, options)
      return this.attempt(
        `${kind} ${label} of ${from.label}`,
        Effect.map(make, (id) => {
          blob.id = id
        }),
        change,
        {
          onSuccess: () => {
            blob.exists.durableSince(this.model.time.next())
            if (kind === "Snapshot") for (const register of from.registers()) register.durableSince(begin)
          }
        }
      ).pipe(Effect.ensuring(Effect.sync(finish)))
    })
  }

  private detach(blob: ModelBlob, kind: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.calls++
      return this.attempt(
        `${kind} ${blob.label}`,
        kind === "Inflate" ? this.store.inflate(blob.id ?? 0) : this.store.decouple(blob.id ?? 0)
      ).pipe(this.called(blob))
    })
  }

  /** After a load, or when nothing is under way: everything is there, and what it should be. */
  verify(isKnown: (xattrs: ReadonlyMap<string, Uint8Array>) => boolean): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { model, store, watch } = this
      const begin = model.time.next()
      const found = new Set<ModelBlob>()
      let allocated = 0
      for (const id of yield* store.ids) {
        yield* Effect.scoped(
          Effect.gen({ self: this }, function* () {
            const open = yield* store.open(id)
            const xattrs = yield* open.xattrs.entries
            const info = yield* open.info
            allocated += info.allocatedBytes / open.clusterBytes
            if (isKnown(xattrs)) return
            const label = Number(textOf(xattrs.get("label")))
            const blob = model.blobs.get(label)
            if (blob === undefined || found.has(blob)) {
              return watch.violated(`blob ${id} with the label ${textOf(xattrs.get("label"))} is nobody's`)
            }
            found.add(blob)
            blob.id = id
            if (!blob.exists.found(true, begin)) watch.violated(`blob ${label} is there, and was deleted or never made`)
            yield* this.verifyBlob(blob, open, xattrs, begin)
          })
        )
      }
      for (const blob of model.blobs.values()) {
        if (found.has(blob)) continue
        if (!blob.exists.found(false, begin)) watch.violated(`blob ${blob.label} is gone`)
      }
      return allocated
    }).pipe(
      Effect.flatMap((allocated) =>
        Effect.map(this.store.info, ({ freeClusters, totalClusters }) => {
          this.watch.log(`verified: ${allocated} clusters are the blobs', ${freeClusters} of ${totalClusters} are free`)
          this.allocated = allocated
          this.used = totalClusters - freeClusters
        })
      ),
      (all) => this.attempt("verify", all)
    )
  }

  /** A blob could not be written when it was closed: what it had beyond its last sync stays taken until the next load. */
  hasLost = false
  /** As the last `verify` found them. */
  allocated = 0
  used = 0

  private verifyBlob(blob: ModelBlob, open: Blob, xattrs: ReadonlyMap<string, Uint8Array>, begin: number) {
    return Effect.gen({ self: this }, function* () {
      const { model, watch } = this
      const clusters = open.sizeBytes / open.clusterBytes
      const sizes = blob.size.possible(begin)
      if (!blob.size.found(clusters, begin)) {
        watch.violated(`blob ${blob.label} has ${clusters} clusters, and not ${[...sizes].join(" or ")}`)
      }
      model.fit(blob, clusters, blob.thin && !blob.hasParent ? Model.zeroStamp : anyStamp)
      const value = xattrs.get("value")
      const number = value === undefined ? noValue : Number(textOf(value))
      const values = blob.xattr.possible(begin)
      if (!blob.xattr.found(number, begin)) {
        watch.violated(`the xattr of blob ${blob.label} is ${number}, and not ${[...values].join(" or ")}`)
      }
      if (clusters === 0) return
      const bytes = yield* open.readBytes(0, open.sizeBytes)
      this.compare(`verify ${blob.label}`, blob, 0, blob.sectors, bytes, begin)
    })
  }
}

const textOf = (bytes: Uint8Array | undefined): string => (bytes === undefined ? "" : Buffer.from(bytes).toString())

const withBuffers = <A, E>(count: number, use: (buffers: ReadonlyArray<DmaBuffer.DmaBuffer>) => Effect.Effect<A, E>) =>
  Effect.scoped(
    Effect.flatMap(
      Effect.forEach(Array.from({ length: count }), () => DmaBuffer.make(sector)),
      use
    )
  ) satisfies Effect.Effect<A, unknown, EngineService | Exclude<Scope.Scope, Scope.Scope>>

const writeVectored = (open: Blob, offset: number, bytes: Uint8Array) =>
  withBuffers(bytes.length / sector, (buffers) =>
    Effect.suspend(() => {
      buffers.forEach((buffer, i) => buffer.bytes.set(bytes.subarray(i * sector, (i + 1) * sector)))
      return open.writev(offset, buffers)
    })
  )

const readVectored = (open: Blob, offset: number, count: number) =>
  withBuffers(count, (buffers) =>
    Effect.map(open.readv(offset, buffers), () => new Uint8Array(Buffer.concat(buffers.map(({ bytes }) => bytes))))
  )
