/**
 * Processes that are killed in the middle of their writing, again and again on the same image: what they said is durable is
 * there, and nothing is half there.
 */
import { assert } from "@effect/vitest"
import type { Blob } from "@effect-spdk/blobstore/Blob"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import type * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import {
  roundBlobBytes,
  roundBlockBytes,
  roundClusterBytes,
  roundImageBytes,
  versionsOf
} from "../support/blobRounds.ts"
import { start } from "../support/children.ts"
import { scratchFile } from "../support/engines.ts"
import { seeded } from "../support/random.ts"

export interface Writer {
  readonly engine: "embedded" | "libspdk"
  readonly driver: "libspdk" | "portable"
}

/** What the processes said. Labels are never used twice, while ids are. */
class Acknowledged {
  readonly versions = new Map<number, number>()
  readonly made = new Set<string>()
  readonly deleted = new Set<string>()
  /** A delete was asked for, and nobody heard of its end. */
  readonly uncertain = new Set<string>()

  hear(line: string): void {
    const [word, first = "", second = ""] = line.split(" ")
    if (word === "synced") {
      const slot = Number(first)
      assert.isAbove(Number(second), this.versions.get(slot) ?? 0, `what slot ${slot} had synced before`)
      this.versions.set(slot, Number(second))
    }
    if (word === "made") this.made.add(first)
    if (word === "deleting") this.uncertain.add(first)
    if (word === "deleted") this.forget(first).deleted.add(first)
  }

  forget(label: string): this {
    this.uncertain.delete(label)
    this.made.delete(label)
    return this
  }
}

const text = (value: Option.Option<Uint8Array>): string | undefined =>
  Option.getOrUndefined(Option.map(value, (bytes) => new TextDecoder().decode(bytes)))

/** The blob of a slot has what was synced, or what the process was writing when it was killed. */
const checkSlot = Effect.fnUntraced(function* (blob: Blob, slot: number, known: Acknowledged) {
  const synced = known.versions.get(slot) ?? 0
  const version = Number(text(yield* blob.xattrs.get("version")) ?? 0)
  assert.include([synced, synced + 1], version, `slot ${slot}`)
  known.versions.set(slot, version)
  // Before the first version nothing was synced: what lies there is anything.
  if (synced === 0) return
  for (const found of versionsOf(slot, yield* blob.readBytes(0, roundBlobBytes))) {
    assert.include([synced, synced + 1], found, `a block of slot ${slot}`)
  }
})

/** The label of the blob, when it has one: it is whole then. */
const checkBlob = Effect.fnUntraced(function* (id: number, known: Acknowledged) {
  const store = yield* Blobstore.Blobstore
  const blob = yield* store.open(id)
  const slot = text(yield* blob.xattrs.get("slot"))
  if (slot !== undefined) {
    yield* checkSlot(blob, Number(slot), known)
    return undefined
  }
  const label = text(yield* blob.xattrs.get("label"))
  const [kind, owner, version] = label?.split("-") ?? []
  if (kind === "snapshot") {
    const versions = versionsOf(Number(owner), yield* blob.readBytes(0, roundBlobBytes))
    assert.deepStrictEqual([...new Set(versions)], [Number(version)], label)
  }
  if (kind === "extra") assert.strictEqual(blob.sizeBytes, (1 + (Number(version) % 3)) * roundClusterBytes, label)
  return label
}, Effect.scoped)

const disk = (path: string) => Bdev.layerFile({ path, blockSize: roundBlockBytes, size: roundImageBytes })

/** What was loaded, changed and unloaded is in order. */
const checkImage = (path: string, what: string) =>
  Effect.provide(
    Effect.map(Check.check, ({ findings }) => {
      const wrong = findings.filter(({ severity }) => severity !== "info").map(({ message }) => message)
      assert.deepStrictEqual(wrong, [], what)
    }),
    disk(path),
    { local: true }
  )

/** Loads the image, compares, removes what would fill it in the end, and unloads it cleanly. */
const load = (path: string, driver: Writer["driver"], known: Acknowledged) =>
  Effect.gen(function* () {
    const store = yield* Blobstore.Blobstore
    const found = new Map<string, number>()
    for (const id of yield* store.ids) {
      const label = yield* checkBlob(id, known)
      if (label === undefined) continue
      assert.isFalse(found.has(label), `${label} is there once`)
      found.set(label, id)
    }
    for (const label of known.deleted) assert.isFalse(found.has(label), `${label} was deleted`)
    for (const label of known.made) {
      if (!known.uncertain.has(label)) assert.isTrue(found.has(label), `${label} was made`)
    }
    // Clones before their snapshots.
    for (const [label, id] of [...found].toReversed()) {
      yield* store.delete(id)
      known.forget(label).deleted.add(label)
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(Blobstore.layer({ onEmpty: "fail", driver }).pipe(Layer.provide(disk(path))), { local: true })
  )

/** `other`: the driver that did not write. */
export type Reader = Writer["driver"] | "other"

const readerOf = (reader: Reader, writer: Writer["driver"]): Writer["driver"] =>
  reader === "other" ? (writer === "libspdk" ? "portable" : "libspdk") : reader

/**
 * `rounds` processes one after the other, each killed at a random moment; what it left behind is loaded by `reader`, and looked at
 * by the checker after that. With `other` the drivers take turns, and else chance decides who writes.
 */
export const killedRounds = (
  writers: ReadonlyArray<Writer>,
  reader: Reader,
  rounds: number
): Effect.Effect<void, unknown, Spdk.Services> =>
  seeded((random) =>
    Effect.gen(function* () {
      const path = yield* scratchFile
      const known = new Acknowledged()
      for (let round = 0; round < rounds; round++) {
        const turn = round % 2 === 0 ? "libspdk" : "portable"
        const { driver, engine } = random.pick(
          reader === "other" ? writers.filter((writer) => writer.driver === turn) : writers
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            const child = yield* start("blobLoad", [engine, driver, path])
            yield* child.line(/^ready$/m)
            // Once at least there is something to find again, however slow the machine is.
            if (round === 0) yield* child.line(/^synced .*$/m)
            yield* Effect.sleep(random.below(400))
            child.process.kill("SIGKILL")
            const { stdout } = yield* child.ended
            for (const line of stdout.split("\n").slice(0, -1)) known.hear(line)
          })
        )
        const loader = readerOf(reader, driver)
        yield* load(path, loader, known)
        yield* checkImage(path, `round ${round}, written by ${driver} on ${engine} and loaded by ${loader}`)
      }
      assert.isAbove(known.versions.size, 0, "something was synced")
    })
  )
