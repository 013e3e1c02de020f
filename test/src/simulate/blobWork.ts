/** The operations on blobs, each beside the model. */
import type { Blob } from "@effect-spdk/blobstore/Blob"
import type { Blobstore } from "@effect-spdk/blobstore/Blobstore"
import type { EngineService } from "@effect-spdk/core/Engine"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import {
  type BlobModel,
  type ModelBlob,
  noParent,
  noValue,
  anyStamp,
  externalParent,
  together,
  type XattrName,
  xattrNames
} from "./blobModel.ts"
import type { Action } from "./plan.ts"
import { endOf, type Watch } from "./violation.ts"
import * as Ways from "./ways.ts"

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
  readonly watch: Watch
  readonly store: Blobstore

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
        return this.onBlob(action.label, "Read", (blob) => this.read(blob, action))
      case "Resize":
        return this.onBlob(action.label, "Resize", (blob) => this.resize(blob, action.clusters))
      case "Sync":
        return this.onBlob(action.label, "Sync", (blob) => this.sync(blob))
      case "SetXattr":
      case "RemoveXattr":
        return this.onBlob(action.label, action._tag, (blob) =>
          this.setXattr(blob, action.name ?? "value", action._tag === "SetXattr")
        )
      case "GetXattr":
        return this.onBlob(action.label, "GetXattr", (blob) => this.getXattr(blob, action.name))
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

  onBlob(
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

  opened<A, E, R>(blob: ModelBlob, use: (open: Blob) => Effect.Effect<A, E, R>) {
    blob.calls++
    return Effect.scoped(Effect.flatMap(this.store.open(blob.id ?? 0), use)).pipe(
      Effect.onExit((exit) => Effect.sync(() => this.closed(blob, exit))),
      this.called(blob)
    )
  }

  /** A close that cannot write the blob loses what was not synced, and says so. */
  private closed(blob: ModelBlob, exit: Exit.Exit<unknown, unknown>): void {
    if (Exit.isSuccess(exit) || !endOf(exit.cause).startsWith("unclosed")) return
    blob.loseUnsynced()
    this.hasLost = true
  }

  called(blob: ModelBlob) {
    return Effect.ensuring(Effect.sync(() => void blob.calls--))
  }

  /** Runs it, logs how it ended, and says what must not be. */
  attempt<A, E, R>(
    text: string,
    effect: Effect.Effect<A, E, R>,
    change?: Model.Change,
    options: {
      readonly partial?: boolean
      /** Cannot be done without the disk. */
      readonly needsDisk?: boolean
      readonly onSuccess?: () => void
      readonly onFailure?: (end: string, isRefused: boolean) => void
    } = {}
  ): Effect.Effect<void, never, R> {
    return Effect.suspend(() => {
      this.watch.log(`${text} ...`)
      const { isGone } = this.watch
      // Who performs an action is uninterruptible, so that the model hears of every end.
      return Effect.map(Effect.exit(Effect.interruptible(effect)), (exit) => {
        if (Exit.isSuccess(exit)) {
          this.watch.log(`${text}: ok`)
          if (isGone) this.watch.endedWithoutDisk(text, "ok", options.needsDisk === true)
          change?.succeed()
          options.onSuccess?.()
          return
        }
        const end = endOf(exit.cause)
        this.watch.log(`${text}: ${end}`)
        if (isGone) this.watch.endedWithoutDisk(text, end, false)
        // A device that says it has no space may have written all the same.
        const isRefused = refusals.has(end) && options.partial !== true && !(this.watch.hasFaults && end === "NoSpace")
        if (isRefused) change?.refuse()
        else change?.fail()
        options.onFailure?.(end, isRefused)
        if (end.startsWith("died") || end === "Corrupted") this.watch.violated(`${text} ended with ${end}`)
        else if (faulty.has(end) && !this.watch.hasFaults) {
          this.watch.violated(`${text} ended with ${end}, and nothing was made to fail`)
        }
      })
    })
  }

  private create(action: Extract<Action, { _tag: "Create" }>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { clearMethod, clusters, extentTable, label, opens = false, padded, thin } = action
      if (this.model.blobs.has(label)) return Effect.void
      const blob = this.model.add(label, clusters, thin)
      const change = blob.exists.begin(true)
      const pad: Record<string, Uint8Array> = padded ? { pad: new Uint8Array(2500), more: new Uint8Array(2500) } : {}
      const options = { clusters, thin, extentTable, xattrs: { label: String(label), ...pad }, clearMethod }
      const made = opens
        ? Effect.scoped(Effect.map(this.store.create(options), ({ id }) => id))
        : this.store.createId(options)
      return this.attempt(
        `create ${label} ${thin ? "thin" : "thick"} of ${clusters}`,
        Effect.map(made, (id) => {
          blob.id = id
        }),
        change,
        {
          // It may be there, and not be opened.
          partial: opens,
          needsDisk: true,
          onSuccess: () => blob.exists.durableSince(this.model.time.next())
        }
      )
    })
  }

  private delete(blob: ModelBlob): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.isDeleting = true
      const change = blob.exists.begin(false)
      const lineage = this.model.lineage.begin()
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
          needsDisk: true,
          onSuccess: () => {
            blob.exists.durableSince(this.model.time.next())
            lineage(() => this.model.lineage.handOver(blob))
          },
          onFailure: (_, isRefused) => lineage(isRefused ? undefined : "unknown")
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
      const way = action.way ?? (action.vectored ? "vectored" : "bytes")
      // Halves that meet inside of a sector leave anything there when somebody else writes it.
      const joint = kind === "Write" && way === "halves" ? blob.sectors[first + Ways.middleOf(count)] : undefined
      const mixed = joint?.begin(anyStamp)
      const change = together(blob.sectors.slice(first, first + count).map((register) => register.begin(stamp)))
      const isAlone = blob.writing === 0
      const wasReadOnly = blob.isSurelyReadOnly
      blob.writing++
      const mine = ++blob.writes
      const end = (done: () => void, how: "succeeded" | "failed" | "refused") => () => {
        blob.writing--
        if (how === "failed" || !isAlone || mine !== blob.writes) mixed?.fail()
        else if (how === "refused") mixed?.refuse()
        // First one half, then both: a power cut may take back the second.
        else mixed?.succeed()
        done()
      }
      // A snapshot that came in between has taken the clusters, and unmapping what is not the blob's own does nothing.
      const succeed = () => (kind === "Unmap" && blob.hasParent ? change.fail() : change.succeed())
      const offset = first * sector
      const length = count * sector
      return this.attempt(
        `${kind} ${blob.label} sectors ${first}+${count} stamp ${stamp} by ${way}`,
        this.opened(blob, (open) =>
          kind === "Zero"
            ? open.writeZeroes(offset, length)
            : kind === "Unmap"
              ? open.unmap(offset, length)
              : Ways.write(open, way, offset, Model.stamped(length, stamp))
        ),
        {
          succeed: end(succeed, "succeeded"),
          fail: end(change.fail, "failed"),
          refuse: end(change.refuse, "refused")
        },
        {
          partial: true,
          needsDisk: kind !== "Unmap",
          onSuccess: () => this.changed(blob, wasReadOnly, kind),
          onFailure: (why) => this.refused(blob, why, kind)
        }
      )
    })
  }

  /** A change has succeeded. */
  changed(blob: ModelBlob, wasReadOnly: boolean, what: string): void {
    if (wasReadOnly) this.watch.violated(`${what} of blob ${blob.label} succeeded, and it is read-only`)
  }

  refused(blob: ModelBlob, end: string, what: string): void {
    if (end !== "ReadOnly" || blob.readOnly.possible().includes(true)) return
    this.watch.violated(`${what} of blob ${blob.label} ended with ReadOnly, and nobody made it that`)
  }

  private read(blob: ModelBlob, action: RangeAction): Effect.Effect<void, never, EngineService> {
    return Effect.suspend(() => {
      const { first, count } = this.range(blob, action.at, action.length)
      if (count === 0) return Effect.void
      const begin = this.model.time.next()
      const registers = blob.sectors.slice(first, first + count)
      const way = action.way ?? (action.vectored ? "vectored" : "bytes")
      const text = `read ${blob.label} sectors ${first}+${count} by ${way}`
      const joint = way === "halves" ? Ways.middleOf(count) : undefined
      return this.attempt(
        text,
        Effect.map(
          this.opened(blob, (open) => Ways.read(open, way, first * sector, count)),
          (bytes) => this.compare(text, blob, first, registers, bytes, begin, joint)
        )
      )
    })
  }

  /** Every sector that still is one of the blob's. */
  compare(
    text: string,
    blob: ModelBlob,
    first: number,
    registers: ReadonlyArray<Model.Register<number>>,
    bytes: Uint8Array,
    begin: number,
    /** The sector, from the first, that was read in two halves. */
    joint?: number
  ): void {
    Model.stampsOf(bytes).forEach((stamp, index) => {
      const register = registers[index]
      if (register === undefined || blob.sectors[first + index] !== register) return
      const allowed = register.possible(begin)
      // One half from before a change, and one from after it.
      if (index === joint && stamp === Model.foreignStamp && allowed.length > 1) return
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
      const wasReadOnly = blob.isSurelyReadOnly && after !== before
      return this.attempt(
        `resize ${blob.label} to ${clusters}`,
        this.opened(blob, (open) => open.resize({ clusters })),
        together([change, lost]),
        {
          onFailure: (end) => this.refused(blob, end, "resize"),
          onSuccess: () => {
            this.changed(blob, wasReadOnly, "resize")
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
        { needsDisk: true, onSuccess: () => registers.forEach((register) => register.durableSince(begin)) }
      )
    })
  }

  private setXattr(blob: ModelBlob, name: XattrName, sets: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const value = sets ? this.model.stamp() : noValue
      const wasReadOnly = blob.isSurelyReadOnly
      return this.attempt(
        `${sets ? "set" : "remove"} xattr ${name} of ${blob.label}: ${value}`,
        this.opened(blob, (open) => changeXattr(open, name, sets ? value : undefined)),
        blob.xattrs[name].begin(value),
        {
          onSuccess: () => this.changed(blob, wasReadOnly, "xattr"),
          onFailure: (end) => this.refused(blob, end, "xattr")
        }
      )
    })
  }

  private getXattr(blob: ModelBlob, name: XattrName): Effect.Effect<void> {
    return Effect.suspend(() => {
      const begin = this.model.time.next()
      const register = blob.xattrs[name]
      return this.attempt(
        `get xattr ${name} of ${blob.label}`,
        Effect.map(
          this.opened(blob, (open) => readXattr(open, name)),
          (value) => {
            const allowed = register.possible(begin)
            if (register.found(value, begin)) return
            this.watch.violated(`the xattr ${name} of blob ${blob.label} is ${value}, and not ${allowed.join(" or ")}`)
          }
        )
      )
    })
  }

  private derive(from: ModelBlob, label: number, kind: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.model.blobs.has(label) || (kind === "Clone" && !from.isSurelyReadOnly)) return Effect.void
      const begin = this.model.time.next()
      const blob = this.model.add(label, 0, true, kind === "Snapshot")
      const lineage = this.model.lineage.begin()
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
          needsDisk: true,
          onSuccess: () => {
            blob.exists.durableSince(this.model.time.next())
            if (kind === "Snapshot") for (const register of from.registers()) register.durableSince(begin)
            lineage(() => {
              blob.parent = kind === "Clone" ? from.label : from.parent
              if (kind === "Snapshot") from.parent = label
            })
          },
          onFailure: (_, isRefused) => lineage(isRefused ? undefined : "unknown")
        }
      ).pipe(Effect.ensuring(Effect.sync(finish)))
    })
  }

  private detach(blob: ModelBlob, kind: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.calls++
      const lineage = this.model.lineage.begin()
      // Also when it fails: half of it may have been done.
      if (kind === "Inflate") blob.thin = false
      return this.attempt(
        `${kind} ${blob.label}`,
        kind === "Inflate" ? this.store.inflate(blob.id ?? 0) : this.store.decouple(blob.id ?? 0),
        undefined,
        {
          onSuccess: () =>
            lineage(() => {
              // A snapshot that failed may be there after a load: the store did not know, and had nothing to do.
              if (kind === "Inflate") blob.parent = blob.parent === undefined ? undefined : noParent
              // Nobody knows what the parent's is where nobody knows the parent. A bdev has none.
              else if (blob.parent !== undefined) {
                const below = this.model.blobs.get(blob.parent)
                blob.parent = below === undefined ? noParent : below.parent
              }
            }),
          onFailure: (_, isRefused) => lineage(isRefused ? undefined : "unknown")
        }
      ).pipe(this.called(blob))
    })
  }

  /** After a load, or when nothing is under way: everything is there, and what it should be. */
  verify(isKnown: (xattrs: ReadonlyMap<string, Uint8Array>) => boolean): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { model, store, watch } = this
      const begin = model.time.next()
      const found = new Set<ModelBlob>()
      const labels = new Map<number, number>()
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
            labels.set(id, blob.label)
            blob.id = id
            if (!blob.exists.found(true, begin)) watch.violated(`blob ${label} is there, and was deleted or never made`)
            yield* this.verifyBlob(blob, open, xattrs, begin)
          })
        )
      }
      yield* this.verifyLineage(found, labels)
      for (const blob of model.blobs.values()) {
        if (found.has(blob)) continue
        if (!blob.exists.found(false, begin)) watch.violated(`blob ${blob.label} is gone`)
      }
      return allocated
    }).pipe(
      Effect.flatMap((allocated) =>
        Effect.map(this.store.info, ({ freeClusters, totalClusters }) => {
          this.model.countTotal(totalClusters, this.watch)
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
      for (const name of xattrNames) {
        const value = numberOf(name, xattrs.get(name))
        const values = blob.xattrs[name].possible(begin)
        if (!blob.xattrs[name].found(value, begin)) {
          watch.violated(`the xattr ${name} of blob ${blob.label} is ${value}, and not ${values.join(" or ")}`)
        }
      }
      const { allocatedBytes, isReadOnly } = yield* open.info
      if (!blob.readOnly.found(isReadOnly, begin)) {
        watch.violated(`blob ${blob.label} is ${isReadOnly ? "read-only" : "writable"}, and must not be`)
      }
      const walked = yield* walk(open)
      if (walked !== allocatedBytes) {
        watch.violated(`blob ${blob.label} has ${allocatedBytes} bytes of its own, and ${walked} are found one by one`)
      }
      if (clusters === 0) return
      const bytes = yield* open.readBytes(0, open.sizeBytes)
      this.compare(`verify ${blob.label}`, blob, 0, blob.sectors, bytes, begin)
    })
  }

  /** Parents and clones say the same, and what is known of them. */
  private verifyLineage(found: ReadonlySet<ModelBlob>, labels: ReadonlyMap<number, number>) {
    return Effect.gen({ self: this }, function* () {
      const { store, watch } = this
      const parents = new Map<number, number>()
      for (const blob of found) {
        const parent = yield* store.parent(blob.id ?? 0)
        const label =
          parent._tag === "None" ? noParent : parent._tag === "External" ? externalParent : labels.get(parent.id)
        if (label === undefined) watch.violated(`the parent of blob ${blob.label} is nobody`)
        else if (blob.parent !== undefined && blob.parent !== label) {
          watch.violated(`the parent of blob ${blob.label} is ${label}, and not ${blob.parent}`)
        }
        blob.parent = label
        if (label !== undefined && label > 0) parents.set(blob.label, label)
      }
      for (const blob of found) {
        const clones = (yield* store.clones(blob.id ?? 0)).map((id) => labels.get(id) ?? -1).toSorted((a, b) => a - b)
        const known = [...parents].flatMap(([label, parent]) => (parent === blob.label ? [label] : []))
        if (clones.join() !== known.toSorted((a, b) => a - b).join()) {
          watch.violated(`the clones of blob ${blob.label} are ${clones.join()}, and not ${known.join()}`)
        }
      }
    })
  }
}

/** The bytes in clusters of its own, from one to the next. */
const walk = (open: Blob) =>
  Effect.gen(function* () {
    let bytes = 0
    for (let at = 0; ;) {
      const first = yield* open.nextAllocated(at)
      if (Option.isNone(first)) return bytes
      const after = Option.getOrElse(yield* open.nextUnallocated(first.value), () => open.sizeBytes)
      bytes += after - first.value
      at = after
    }
  })

const Json = Schema.Struct({ stamp: Schema.Number })
const bigBytes = 5 * sector

const changeXattr = (open: Blob, name: XattrName, value: number | undefined): Effect.Effect<void, unknown> => {
  if (value === undefined) return open.xattrs.remove(name)
  if (name === "json") return open.xattrs.schema(name, Json).set({ stamp: value })
  return open.xattrs.set(name, name === "big" ? Model.stamped(bigBytes, value) : String(value))
}

const readXattr = (open: Blob, name: XattrName) =>
  name === "json"
    ? Effect.map(open.xattrs.schema(name, Json).get, (found) => (Option.isNone(found) ? noValue : found.value.stamp))
    : Effect.map(open.xattrs.get(name), (found) => numberOf(name, Option.getOrUndefined(found)))

const numberOf = (name: XattrName, bytes: Uint8Array | undefined): number => {
  if (bytes === undefined) return noValue
  if (name === "value") return Number(textOf(bytes))
  if (name === "json") return Number(/^\{"stamp":(\d+)\}$/.exec(textOf(bytes))?.[1] ?? -1)
  const stamps = new Set(Model.stampsOf(bytes))
  return bytes.length === bigBytes && stamps.size === 1 ? (Model.stampsOf(bytes)[0] ?? -1) : -1
}

const textOf = (bytes: Uint8Array | undefined): string => (bytes === undefined ? "" : Buffer.from(bytes).toString())
