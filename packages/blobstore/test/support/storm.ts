/**
 * A model of what blobs may hold while fibers work on them. Every sector that is written gets a number nobody else writes. Of each
 * sector the model keeps the numbers that a read may see now, and those that may be there after a power cut: all that it may have
 * had since the last sync that succeeded began.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import * as Simulation from "@effect-spdk/core/Simulation"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Blob, BlobId } from "../../src/Blob.ts"
import * as Blobstore from "../../src/Blobstore.ts"
import * as Check from "../../src/Check.ts"

const clusterBytes = 4096
const unit = 512
const perCluster = clusterBytes / unit
const fibers = 5
const steps = 14
const mostBlobs = 7
/** Of a sector: nobody knows, as of what a thick blob gains. */
const any = -1

interface Cell {
  now: Set<number>
  /** What a power cut may leave. */
  later: Set<number>
}

interface Known {
  readonly id: BlobId
  cells: Array<Cell>
  /** In clusters. */
  sizes: Set<number>
  laterSizes: Set<number>
  xattr: Cell
  readonly thin: boolean
  hasParent: boolean
  readonly isSnapshot: boolean
  /** Sectors that somebody is writing. */
  readonly writing: Set<number>
  /** A change of the size, of the content as a whole or a removal is under way. */
  busy: number
  readonly watchers: Set<Watcher>
  gone: boolean
  maybe: boolean
  /** Operations under way, and those of them that set the xattr. */
  using: number
  setting: number
  /** Another one has set it meanwhile. */
  settingMore: boolean
  /** Its metadata may have been written since the last sync that succeeded: a page in its place is torn with the power. */
  tainted: boolean
}

/** A read, a snapshot or a sync that is under way: what it may see. */
interface Watcher {
  readonly seen: Array<Set<number>>
}

const cell = (value: number): Cell => ({ now: new Set([value]), later: new Set([value]) })

const allow = (blob: Known, index: number, value: number): void => {
  const one = blob.cells[index]
  if (one === undefined) return
  one.now.add(value)
  one.later.add(value)
  for (const { seen } of blob.watchers) seen[index]?.add(value)
}

/** From now on nothing but these. */
const settle = (blob: Known, index: number, values: Iterable<number>): void => {
  const one = blob.cells[index]
  if (one !== undefined) one.now = new Set(values)
}

const watch = (blob: Known): Watcher => {
  const watcher = { seen: blob.cells.map(({ now }) => new Set(now)) }
  blob.watchers.add(watcher)
  return watcher
}

const unknownBlob = (id: BlobId, cells: Array<Cell>, size: number, thin: boolean, isSnapshot: boolean): Known => ({
  id,
  cells,
  sizes: new Set([size]),
  laterSizes: new Set([size]),
  xattr: cell(0),
  thin,
  hasParent: false,
  isSnapshot,
  writing: new Set(),
  busy: 0,
  watchers: new Set(),
  gone: false,
  maybe: false,
  using: 0,
  setting: 0,
  settingMore: false,
  tainted: false
})

class Storm {
  readonly wrong: Array<string> = []
  readonly blobs: Array<Known> = []
  readonly log: Array<string> = []
  /** A create, a snapshot or a clone has failed, and may be there. */
  strays = 0
  private stamp = 1
  private readonly chance: Simulation.Chance
  faulty = false
  /** The power cut has torn pages. */
  torn = false

  constructor(simulation: Simulation.Simulation) {
    this.chance = simulation.chance("storm")
  }

  say(text: string): void {
    this.log.push(text)
  }

  fail(text: string): void {
    if (this.wrong.length < 20) this.wrong.push(text)
  }

  below(limit: number): number {
    return this.chance.below(limit)
  }

  pick(): Known | undefined {
    const there = this.blobs.filter((blob) => !blob.gone && blob.busy === 0)
    return there[this.below(Math.max(1, there.length))]
  }

  bytesOf(values: ReadonlyArray<number>): Uint8Array {
    const bytes = new Uint8Array(values.length * unit)
    const words = new Uint32Array(bytes.buffer)
    for (const [i, value] of values.entries()) words.fill(value, (i * unit) / 4, ((i + 1) * unit) / 4)
    return bytes
  }

  /** What an end may be. Anything else is wrong. */
  judge(what: string, exit: Exit.Exit<unknown, unknown>): boolean {
    if (Exit.isSuccess(exit)) return true
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    const tag = SpdkError.isSpdkError(error) ? error.reason._tag : "defect"
    this.say(`${what}: ${tag}${SpdkError.isSpdkError(error) ? ` ${error.message}` : ""}`)
    const always = ["NoSpace", "NoMemory", "Busy", "ReadOnly", "NotFound", "InvalidArgument", "AlreadyExists"]
    const isRight = always.includes(tag) || (this.faulty && (tag === "IoFailed" || tag === "defect"))
    if (!isRight) this.fail(`${what} ends with ${tag}: ${Cause.pretty(exit.cause).slice(0, 400)}`)
    return false
  }

  read(blob: Known, handle: Blob, from: number, count: number) {
    const watcher = watch(blob)
    return Effect.map(Effect.exit(handle.readBytes(from * unit, count * unit)), (exit) => {
      blob.watchers.delete(watcher)
      if (!this.judge(`read ${blob.id}`, exit) || Exit.isFailure(exit)) return
      this.compare(blob, "reads", exit.value, from, (i) => watcher.seen[i])
    })
  }

  compare(
    blob: Known,
    what: string,
    bytes: Uint8Array,
    from: number,
    allowed: (index: number) => ReadonlySet<number> | undefined
  ): void {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
    for (let i = 0; i * unit < bytes.length; i++) {
      const value = words[(i * unit) / 4] ?? 0
      const isOne = words.subarray((i * unit) / 4, ((i + 1) * unit) / 4).every((word) => word === value)
      const may = allowed(from + i)
      if (may === undefined || may.has(any)) continue
      if (!isOne || !may.has(value)) {
        this.fail(
          `${what}: blob ${blob.id - 2 ** 32} sector ${from + i} holds ${isOne ? value : "a mixture"}, not ${[...may]}`
        )
      }
    }
  }

  write(blob: Known, handle: Blob, zero: boolean) {
    return Effect.suspend(() => {
      const size = Math.min(...blob.sizes) * perCluster
      if (size === 0) return Effect.void
      const from = this.below(size)
      const count = Math.min(size - from, 1 + this.below(this.below(2) === 0 ? 4 : 24))
      for (let i = from; i < from + count; i++) if (blob.writing.has(i)) return Effect.void
      const values = Array.from({ length: count }, () => (zero ? 0 : this.stamp++))
      for (const [i, value] of values.entries()) {
        blob.writing.add(from + i)
        allow(blob, from + i, value)
      }
      const call = zero
        ? handle.writeZeroes(from * unit, count * unit)
        : handle.writeBytes(from * unit, this.bytesOf(values))
      return Effect.map(Effect.exit(call), (exit) => {
        this.say(`wrote ${blob.id - 2 ** 32} ${from}+${count} ${values[0]} ${exit._tag}`)
        const isDone = this.judge(`write ${blob.id}`, exit)
        for (const [i, value] of values.entries()) {
          blob.writing.delete(from + i)
          if (isDone) settle(blob, from + i, [value])
        }
      })
    })
  }

  unmap(blob: Known, handle: Blob) {
    return Effect.suspend(() => {
      const clusters = Math.min(...blob.sizes)
      if (clusters === 0) return Effect.void
      const first = this.below(clusters) * perCluster
      for (let i = first; i < first + perCluster; i++) if (blob.writing.has(i)) return Effect.void
      for (let i = first; i < first + perCluster; i++) {
        blob.writing.add(i)
        allow(blob, i, 0)
      }
      return Effect.map(Effect.exit(handle.unmap(first * unit, clusterBytes)), (exit) => {
        this.say(`unmapped ${blob.id - 2 ** 32} ${first} ${exit._tag}`)
        this.judge(`unmap ${blob.id}`, exit)
        for (let i = first; i < first + perCluster; i++) blob.writing.delete(i)
      })
    })
  }

  sync(blob: Known, handle: Blob) {
    return Effect.suspend(() => {
      const watcher = watch(blob)
      const sizes = new Set(blob.sizes)
      const xattr = new Set(blob.xattr.now)
      return Effect.map(Effect.exit(handle.sync), (exit) => {
        blob.watchers.delete(watcher)
        this.say(`synced ${blob.id - 2 ** 32} ${exit._tag}`)
        if (!this.judge(`sync ${blob.id}`, exit)) return
        if (blob.using === 1) blob.tainted = false
        for (const [i, one] of blob.cells.entries()) {
          const seen = watcher.seen[i]
          if (seen !== undefined) one.later = new Set([...seen, ...one.now])
        }
        blob.laterSizes = new Set([...sizes, ...blob.sizes])
        blob.xattr.later = new Set([...xattr, ...blob.xattr.now])
      })
    })
  }

  setXattr(blob: Known, handle: Blob) {
    return Effect.suspend(() => {
      const value = this.stamp++
      blob.setting++
      blob.xattr.now.add(value)
      blob.xattr.later.add(value)
      return Effect.map(Effect.exit(handle.xattrs.set("v", `${value}`.padEnd(this.below(1500)))), (exit) => {
        // Of two at once either may be the last.
        const isAlone = --blob.setting === 0 && blob.xattr.now.has(value)
        if (this.judge(`xattr ${blob.id}`, exit) && isAlone && !blob.settingMore) blob.xattr.now = new Set([value])
        blob.settingMore = blob.setting > 0
      })
    })
  }

  resize(blob: Known, handle: Blob) {
    return Effect.suspend(() => {
      if (blob.writing.size > 0 || blob.watchers.size > 0 || blob.busy > 1) return Effect.void
      const before = Math.max(...blob.sizes)
      const clusters = 1 + this.below(9)
      blob.sizes.add(clusters)
      blob.laterSizes.add(clusters)
      const gains = blob.thin && !blob.hasParent ? 0 : any
      return Effect.map(Effect.exit(handle.resize({ clusters })), (exit) => {
        this.say(`resized ${blob.id - 2 ** 32} ${before} to ${clusters} ${exit._tag}`)
        const isDone = this.judge(`resize ${blob.id}`, exit)
        blob.sizes = new Set([handle.sizeBytes / clusterBytes])
        const now = handle.sizeBytes / clusterBytes
        if (isDone && now !== clusters) this.fail(`blob ${blob.id} has ${now} clusters, not ${clusters}`)
        if (!isDone && now !== before && now !== clusters)
          this.fail(`blob ${blob.id} has ${now} clusters after a failure`)
        if (isDone && clusters < before) blob.laterSizes = new Set([clusters])
        const keep = Math.min(now, clusters) * perCluster
        // What was cut off comes back as something else, if it was cut off.
        for (let i = keep; i < blob.cells.length; i++) {
          blob.cells[i]?.later.add(gains)
          if (now < before) blob.cells[i]?.now.add(gains)
        }
        if (isDone && now < before) blob.cells.length = now * perCluster
        while (blob.cells.length < now * perCluster) blob.cells.push(cell(gains))
      })
    })
  }

  /** A blob with what the other may hold while this is under way. */
  derive(blob: Known, call: Effect.Effect<BlobId, unknown>, isSnapshot: boolean) {
    const watcher = watch(blob)
    const size = Math.min(...blob.sizes)
    this.strays++
    return Effect.map(Effect.exit(call), (exit) => {
      blob.watchers.delete(watcher)
      const isDone = this.judge(`${isSnapshot ? "snapshot" : "clone"} ${blob.id}`, exit)
      if (isSnapshot) blob.hasParent = true
      if (!isDone || Exit.isFailure(exit)) {
        const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : Option.none()
        const isIo =
          Option.isSome(error) && SpdkError.isSpdkError(error.value) && error.value.reason._tag === "IoFailed"
        if (!isIo) this.strays--
        return
      }
      this.strays--
      this.say(`${isSnapshot ? "snapshot" : "clone"} of ${blob.id - 2 ** 32}: ${exit.value - 2 ** 32}`)
      const cells = watcher.seen.map((seen) => ({
        now: new Set(seen),
        later: new Set(seen)
      }))
      // A snapshot shows what had come to the disk, and is durable; the data under it may not be.
      for (const [i, one] of cells.entries()) for (const value of blob.cells[i]?.later ?? []) one.later.add(value)
      const made = unknownBlob(exit.value, cells, size, true, isSnapshot)
      made.hasParent = true
      made.xattr = { now: new Set([any]), later: new Set([any]) }
      this.blobs.push(made)
    })
  }

  step(store: Blobstore.Blobstore): Effect.Effect<void, never, never> {
    return Effect.suspend(() => {
      const there = this.blobs.filter((blob) => !blob.gone)
      const choice = this.below(20)
      if (there.length < 2 || (choice === 0 && there.length < mostBlobs)) return this.create(store)
      const blob = this.pick()
      if (blob === undefined) return Effect.void
      blob.using++
      blob.tainted = true
      return Effect.ensuring(
        this.stepOn(store, blob, choice, there.length),
        Effect.sync(() => void blob.using--)
      )
    })
  }

  private stepOn(store: Blobstore.Blobstore, blob: Known, choice: number, there: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (choice === 1) return this.alone(blob, this.remove(store, blob))
      if (choice === 2 && !blob.isSnapshot && there < mostBlobs) {
        return this.alone(blob, this.derive(blob, store.snapshot(blob.id), true))
      }
      if (choice === 3 && blob.isSnapshot && there < mostBlobs) {
        return this.alone(blob, this.derive(blob, store.clone(blob.id), false))
      }
      if (choice === 4 || choice === 5) {
        const call = choice === 4 ? store.inflate(blob.id) : store.decouple(blob.id)
        return Effect.map(Effect.exit(call), (exit) => {
          this.say(`${choice === 4 ? "inflated" : "decoupled"} ${blob.id - 2 ** 32} ${exit._tag}`)
          this.judge(`inflate ${blob.id}`, exit)
        })
      }
      if (choice === 6) {
        return Effect.map(Effect.exit(store.ids), (exit) => {
          if (!this.judge("ids", exit) || Exit.isFailure(exit)) return
          for (const one of this.blobs) {
            if (!one.gone && !one.maybe && one.busy === 0 && !exit.value.includes(one.id))
              this.fail(`ids miss ${one.id}`)
          }
        })
      }
      const size = Math.min(...blob.sizes) * perCluster
      const use = (handle: Blob): Effect.Effect<void> => {
        if (blob.isSnapshot || choice < 10) {
          return size === 0 ? Effect.void : this.read(blob, handle, 0, size)
        }
        if (choice === 10) return this.unmap(blob, handle)
        if (choice === 11) return this.alone(blob, this.resize(blob, handle))
        if (choice === 12) return this.setXattr(blob, handle)
        if (choice === 13 || choice === 14) return this.sync(blob, handle)
        return this.write(blob, handle, choice === 15)
      }
      return Effect.map(Effect.exit(Effect.scoped(Effect.flatMap(store.open(blob.id), use))), (exit) => {
        if (blob.gone || blob.maybe) return
        this.judge(`use of ${blob.id}`, exit)
      })
    })
  }

  /** Others leave it alone meanwhile, but for what they have begun. */
  private alone(blob: Known, effect: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.busy++
      return Effect.ensuring(
        effect,
        Effect.sync(() => void blob.busy--)
      )
    })
  }

  private create(store: Blobstore.Blobstore): Effect.Effect<void> {
    return Effect.suspend(() => {
      const clusters = 1 + this.below(8)
      const thin = this.below(3) > 0
      this.strays++
      return Effect.map(Effect.exit(store.createId({ clusters, thin, extentTable: this.below(3) > 0 })), (exit) => {
        const isDone = this.judge("create", exit)
        if (isDone || !this.faulty) this.strays--
        if (!isDone || Exit.isFailure(exit)) return
        this.say(`created ${exit.value - 2 ** 32} of ${clusters}${thin ? ", thin" : ""}`)
        // A thick blob has what the device has, and never what another wrote after that was cleared.
        const cells = Array.from({ length: clusters * perCluster }, () => cell(thin ? 0 : any))
        this.blobs.push(unknownBlob(exit.value, cells, clusters, thin, false))
      })
    })
  }

  private remove(store: Blobstore.Blobstore, blob: Known): Effect.Effect<void> {
    return Effect.suspend(() => {
      blob.maybe = true
      return Effect.map(Effect.exit(store.delete(blob.id)), (exit) => {
        this.say(`deleted ${blob.id - 2 ** 32} ${exit._tag}`)
        if (this.judge(`delete ${blob.id}`, exit)) {
          blob.gone = true
          return
        }
        const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
        const tag = SpdkError.isSpdkError(error) ? error.reason._tag : ""
        if (tag === "Busy") blob.maybe = false
        // It may be there, or not, and is nobody's business any more.
        else blob.gone = true
      })
    })
  }
}

/** Everything at rest. `isAfterCut`: against what a power cut may leave. */
const verify = (self: Storm, store: Blobstore.Blobstore, isAfterCut: boolean) =>
  Effect.gen(function* () {
    const when = isAfterCut ? "after a power cut" : "at rest"
    const ids = yield* store.ids
    const sure = self.blobs.filter((blob) => !blob.gone && !blob.maybe)
    const unsure = self.blobs.filter((blob) => blob.maybe).length + self.strays
    const mayBeTorn = (blob: Known) => isAfterCut && self.torn && blob.tainted
    for (const blob of sure) {
      if (!ids.includes(blob.id) && !mayBeTorn(blob)) self.fail(`${when}: blob ${blob.id - 2 ** 32} is missing`)
    }
    const extra = ids.filter((id) => !sure.some((blob) => blob.id === id))
    if (extra.length > unsure) self.fail(`${when}: blobs ${extra.map((id) => id - 2 ** 32)} are there`)
    let allocated = 0
    for (const id of ids) {
      const exit = yield* Effect.exit(
        Effect.scoped(
          Effect.gen(function* () {
            const handle = yield* store.open(id)
            allocated += (yield* handle.info).allocatedClusters
            const bytes = yield* handle.readBytes(0, handle.sizeBytes)
            const xattr = yield* handle.xattrs.get("v")
            return { bytes, xattr, clusters: handle.sizeBytes / clusterBytes }
          })
        )
      )
      if (Exit.isFailure(exit)) {
        if (isAfterCut && self.torn && self.blobs.some(({ tainted }) => tainted)) continue
        self.fail(`${when}: blob ${id - 2 ** 32}: ${Cause.pretty(exit.cause).slice(0, 300)}`)
        continue
      }
      const blob = sure.find((one) => one.id === id)
      if (blob === undefined) continue
      const { bytes, clusters, xattr } = exit.value
      const sizes = isAfterCut ? blob.laterSizes : blob.sizes
      if (!sizes.has(clusters)) self.fail(`${when}: blob ${id - 2 ** 32} has ${clusters} clusters, not ${[...sizes]}`)
      self.compare(blob, when, bytes, 0, (i) => (isAfterCut ? blob.cells[i]?.later : blob.cells[i]?.now))
      const value = Option.isNone(xattr) ? 0 : Number(new TextDecoder().decode(xattr.value))
      const may = isAfterCut ? blob.xattr.later : blob.xattr.now
      if (!may.has(any) && !may.has(value)) self.fail(`${when}: xattr of ${id - 2 ** 32} is ${value}, not ${[...may]}`)
    }
    return { allocated, info: yield* store.info }
  })

const onStore = <A, E>(
  disk: SimulatedDisk.SimulatedDisk,
  make: (bdev: Bdev.Bdev) => Effect.Effect<A, E, Spdk.EngineService | Scope.Scope>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const bdev = yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write: true })
      return yield* make(bdev)
    })
  ).pipe(Effect.provide(Spdk.layerEmbedded()))

const on = <A, E, R>(bdev: Bdev.Bdev, effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Bdev.Bdev, bdev)

/** What is wrong; nothing, when all is well. `say`: also what was done. */
export const storm = (seed: number, say?: (line: string) => void): ReadonlyArray<string> => {
  const simulation = Simulation.make({ seed })
  const disk = SimulatedDisk.make(simulation, { sizeBytes: 512 * 1024 })
  const chance = simulation.chance("plan")
  const model = new Storm(simulation)
  const cuts = chance.below(2) === 0
  const faults = chance.below(2) === 0
  const pages = 16 + chance.below(16)

  model.torn = chance.below(3) === 0
  let left: Uint8Array | undefined
  /** An extent page was torn in its place, and the store does not load any more. */
  let lost = false
  /** Whole pages, each of now or of the last flush. */
  const mixed = (): Uint8Array => {
    const now = disk.contents()
    const image = disk.durableContents()
    for (let at = 0; at < image.length; at += clusterBytes) {
      if (chance.below(2) === 0) image.set(now.subarray(at, at + clusterBytes), at)
    }
    return image
  }

  const life = (isFirst: boolean) =>
    onStore(disk, (bdev) =>
      Effect.gen(function* () {
        const made = isFirst
          ? Blobstore.init({ clusterSize: clusterBytes, metadataPages: pages, driver: "portable" })
          : Blobstore.load({ driver: "portable" })
        const result = yield* Effect.exit(
          Effect.scoped(
            Effect.gen(function* () {
              const store = yield* on(bdev, made)
              if (!isFirst) yield* verify(model, store, true)
              if (!isFirst) return
              const now = disk.requests
              if (cuts) {
                const at = now + 20 + chance.below(1500)
                disk.onRequest = ({ number }) => {
                  if (number < at) return undefined
                  if (model.torn) return { _tag: "Cut" }
                  left = mixed()
                  disk.killProcess()
                  return undefined
                }
              }
              if (faults) {
                model.faulty = true
                disk.faults.error = 0.01 + chance.below(5) / 100
                disk.faults.operations = new Set(["write", "flush", "unmap", "writeZeroes"])
              }
              const worker = Effect.gen(function* () {
                for (let i = 0; i < steps; i++) yield* model.step(store)
              })
              yield* Effect.forEach(Array.from({ length: fibers }), () => worker, {
                concurrency: "unbounded",
                discard: true
              })
              disk.faults.error = 0
              yield* verify(model, store, false)
              // What could not be written before is written now, and what waited for it is free.
              yield* Effect.ignore(Effect.flatMap(store.createId(), (id) => store.delete(id)))
              const seen = yield* verify(model, store, false)
              if (seen.info.freeClusters !== seen.info.totalClusters - seen.allocated) {
                model.fail(
                  `${seen.info.freeClusters} of ${seen.info.totalClusters} are free, ${seen.allocated} allocated`
                )
              }
            })
          )
        )
        if (Exit.isFailure(result) && !isFirst && model.torn && model.blobs.some(({ tainted }) => tainted)) {
          const error = Option.getOrUndefined(Cause.findErrorOption(result.cause))
          if (SpdkError.isSpdkError(error) && error.reason._tag === "Corrupted") lost = true
        }
        if (Exit.isFailure(result) && !lost)
          model.fail(`${isFirst ? "store" : "load"}: ${Cause.pretty(result.cause).slice(0, 600)}`)
      })
    )

  const check = () =>
    onStore(disk, (bdev) =>
      Effect.map(on(bdev, Check.check), ({ findings }) => {
        const wrong = findings.filter(({ severity }) => severity !== "info").map(({ message }) => message)
        if (wrong.length > 0) model.fail(`check: ${wrong.join("; ")}`)
        return findings.some(({ _tag }) => _tag === "Unclean")
      })
    )

  const end = (name: string, outcome: Simulation.Outcome<unknown, unknown>, expected: ReadonlyArray<string>) => {
    if (!expected.includes(outcome.ending)) model.fail(`${name}: ${outcome.ending} ${String(outcome.thrown ?? "")}`)
  }
  const first = simulation.run(life(true))
  end("first life", first, cuts ? ["done", "stopped"] : ["done"])
  disk.onRequest = undefined
  disk.faults.error = 0
  if (left !== undefined) disk.restore(left)
  // A write that fails leaves any part of itself, too.
  model.torn = first.ending === "stopped" && (model.torn || faults)
  if (first.ending === "done" && model.wrong.length === 0) {
    // Nothing was lost: what was synced by the close is there.
    if (!faults) {
      for (const blob of model.blobs) {
        for (const one of blob.cells) one.later = one.now
        blob.laterSizes = blob.sizes
        blob.xattr.later = blob.xattr.now
      }
    }
  }
  if (model.wrong.length === 0) end("second life", simulation.run(life(false)), ["done"])
  if (lost) return model.wrong
  if (model.wrong.length === 0) end("check", simulation.run(check()), ["done"])
  if (model.wrong.length === 0) end("third life", simulation.run(life(false)), ["done"])
  if (model.wrong.length > 0) {
    say?.(
      `cuts ${cuts}, faults ${faults}, torn ${model.torn}, pages ${pages}, tainted ${model.blobs.filter(({ tainted }) => tainted).map(({ id }) => id - 2 ** 32)}`
    )
  }
  if (model.wrong.length > 0 && say !== undefined) for (const line of model.log) say(line)
  return model.wrong
}
