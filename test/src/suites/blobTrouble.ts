/**
 * What SPDK's blobstore does not take notice of: metadata that cannot be written, I/O that is under way when lists of clusters change
 * hands, metadata pages that run out. A call that succeeded is there after a load, and nothing else is damaged.
 */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Check from "@effect-spdk/blobstore/Check"
import * as Bdev from "@effect-spdk/core/Bdev"
import type * as Spdk from "@effect-spdk/core/Spdk"
import type { ReasonTag, SpdkErrorOf } from "@effect-spdk/core/SpdkError"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import { type BlobSuite, closable, device, during, init, KiB, load, MiB, smallClusters } from "../support/blobs.ts"
import { long, scratchFile } from "../support/engines.ts"
import { contract, expectReasonIn, failsWith, pattern, sameBytes, until } from "../support/harness.ts"
import { arrived, errorBdev, errorBdevOn, inFlight, needsResume } from "../support/held.ts"
import { type RandomSource, seeded } from "../support/random.ts"

const pieceBytes = 16 * KiB
const writers = 8
const piecesEach = 24
const rounds = long ? 300 : 16

/** Nothing is damaged, and no cluster or page is marked that nobody has. */
const isClean = (bdev: Bdev.Bdev) =>
  Effect.map(Effect.provideService(Check.check, Bdev.Bdev, bdev), ({ findings }) =>
    assert.deepStrictEqual(
      findings.filter(({ severity }) => severity !== "info").map(({ message }) => message),
      []
    )
  )

const xattr = (blob: Blob.Blob, name: string) =>
  Effect.map(blob.xattrs.get(name), (value) => Option.getOrElse(value, () => new Uint8Array()))

const fill = (value: number): Uint8Array => new Uint8Array(new Uint32Array(pieceBytes / 4).fill(value).buffer)

export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    check("a failed write of metadata is told, and what a sync covered is there after a load", () =>
      Effect.gen(function* () {
        // The first N writes after the failure begins, so that each step of the first write to a cluster fails once.
        for (const failing of [1, 2, 3]) {
          const { bdev, inject } = yield* errorBdev(16_384)
          const id = yield* during(init(bdev, driver), (store) => store.createId({ clusters: 4, thin: true }))
          const written = yield* during(load(bdev, driver), (store) =>
            during(store.open(id), (blob) =>
              Effect.gen(function* () {
                yield* inject({ ioType: "write", errorType: "failure", count: failing })
                const exits = [
                  yield* Effect.exit(blob.writeBytes(0, pattern(4096, failing))),
                  yield* Effect.exit(blob.sync)
                ]
                yield* inject({ ioType: "clear", errorType: "failure" })
                return exits.every(Exit.isSuccess)
              })
            )
          ).pipe(Effect.orElseSucceed(() => false))
          yield* during(load(bdev, driver), (store) =>
            Effect.gen(function* () {
              assert.deepStrictEqual(yield* store.ids, [id])
              const bytes = yield* during(store.open(id), (blob) => blob.readBytes(0, 4096))
              if (written) sameBytes(bytes, pattern(4096, failing), "what a sync covered")
            })
          )
          yield* isClean(bdev)
        }
      })
    )

    if (driver === "libspdk") {
      check("a store that could not write its metadata stops until it is loaded anew", () =>
        Effect.gen(function* () {
          const { bdev, inject } = yield* errorBdev(16_384)
          const kept = pattern(5000, 1)
          const { close, resource: store } = yield* closable(init(bdev, driver))
          const { freeClusters } = yield* store.info
          const blob = yield* closable(store.create({ clusters: 4, thin: true }))
          const { id } = blob.resource
          yield* blob.resource.writeBytes(0, kept)
          yield* blob.resource.sync
          yield* inject({ ioType: "write", errorType: "failure", count: 1 })
          yield* failsWith(blob.resource.writeBytes(smallClusters, kept), "IoFailed")
          const changes: ReadonlyArray<Effect.Effect<void, SpdkErrorOf<ReasonTag>>> = [
            blob.resource.writeBytes(0, pattern(5000, 2)),
            blob.resource.unmap(0, smallClusters),
            blob.resource.writeZeroes(0, smallClusters),
            blob.resource.sync,
            blob.resource.resize({ clusters: 2 }),
            blob.resource.xattrs.set("a", kept.subarray(0, 9)),
            Effect.asVoid(store.createId({ clusters: 1 })),
            Effect.asVoid(store.snapshot(id)),
            store.inflate(id),
            store.setSuperBlob(id)
          ]
          for (const change of changes) yield* failsWith(change, "IoFailed")
          sameBytes(yield* blob.resource.readBytes(0, 5000), kept, "reads go on")
          assert.deepStrictEqual(yield* store.ids, [id])
          assert.isFalse((yield* blob.resource.info).isReadOnly)
          yield* blob.close
          yield* close
          yield* during(load(bdev, driver), (again) =>
            Effect.gen(function* () {
              assert.strictEqual((yield* again.info).freeClusters, freeClusters - 1)
              const same = yield* again.open(id)
              sameBytes(yield* same.readBytes(0, 5000), kept, "after a load")
              yield* same.writeBytes(smallClusters, kept)
              yield* same.sync
            })
          )
          yield* isClean(bdev)
        })
      )
    }

    check("a creation that fails keeps no cluster past the next load", () =>
      Effect.gen(function* () {
        for (const failing of [1, 2, 3, 4]) {
          const { bdev, inject } = yield* errorBdev(16_384)
          const before = yield* during(init(bdev, driver), (store) => store.info)
          yield* Effect.exit(
            during(load(bdev, driver), (store) =>
              Effect.gen(function* () {
                yield* inject({ ioType: "write", errorType: "failure", count: failing })
                yield* Effect.exit(
                  store.createId({ clusters: 10, xattrs: { much: pattern(3000, 1), more: pattern(3000, 2) } })
                )
                yield* inject({ ioType: "clear", errorType: "failure" })
              })
            )
          )
          yield* during(load(bdev, driver), (store) =>
            Effect.gen(function* () {
              const made = (yield* store.ids).length
              assert.strictEqual(
                (yield* store.info).freeClusters,
                before.freeClusters - 10 * made,
                `${failing} failures`
              )
            })
          )
          yield* isClean(bdev)
        }
      })
    )

    check("more clusters than the metadata pages can tell of are refused, and nothing has changed", () =>
      Effect.gen(function* () {
        const bdev = yield* device({ sizeBytes: 24 * MiB, blockSize: 4096 })
        yield* during(init(bdev, driver, { clusterSize: 4 * KiB, metadataPages: 4 }), (store) =>
          Effect.gen(function* () {
            const { freeClusters } = yield* store.info
            yield* failsWith(store.createId({ clusters: 4000 }), "NoSpace")
            const blob = yield* store.create({ clusters: 1 })
            yield* failsWith(blob.resize({ clusters: 4000 }), "NoSpace")
            assert.strictEqual(blob.sizeBytes, 4 * KiB)
            assert.strictEqual((yield* store.info).freeClusters, freeClusters - 1)
            // Two extent pages and the root.
            yield* blob.resize({ clusters: 1500 })
            yield* blob.writeBytes(1499 * 4096, pattern(4096, 3))
            sameBytes(yield* blob.readBytes(1499 * 4096, 4096), pattern(4096, 3), "the last cluster")
            yield* blob.sync
          })
        )
        yield* isClean(bdev)
      })
    )

    for (const by of ["sync", "close"]) {
      check(
        `a ${by} that finds no page for the metadata says so, and what was synced before is there after a load`,
        () =>
          Effect.gen(function* () {
            const bdev = yield* device()
            let id: Blob.BlobId | undefined
            let others = 0
            const ended = yield* during(
              init(bdev, driver, { clusterSize: smallClusters, metadataPages: 12 }),
              (store) =>
                Effect.gen(function* () {
                  const blob = yield* store.create({ clusters: 1 })
                  id = blob.id
                  // More than one page, of which a sync writes the later ones anew, elsewhere.
                  yield* blob.xattrs.set("a", pattern(3000, 1))
                  yield* blob.xattrs.set("b", pattern(3000, 2))
                  yield* blob.sync
                  for (;;) {
                    const exit = yield* Effect.exit(Effect.asVoid(store.createId()))
                    if (Exit.isFailure(exit)) {
                      expectReasonIn(exit, ["NoSpace", "NoMemory"])
                      break
                    }
                    others++
                  }
                  yield* blob.xattrs.set("a", pattern(3000, 3))
                  if (by === "sync") expectReasonIn(yield* Effect.exit(blob.sync), ["NoSpace", "NoMemory"])
                })
            ).pipe(Effect.exit)
            // The scope of the blob ends with it.
            assert.isTrue(Exit.isFailure(ended))
            if (id === undefined) return assert.fail("no blob")
            const kept = id
            yield* during(load(bdev, driver), (store) =>
              Effect.gen(function* () {
                assert.lengthOf(yield* store.ids, others + 1)
                const blob = yield* store.open(kept)
                sameBytes(yield* xattr(blob, "b"), pattern(3000, 2), "the xattr that was synced")
                sameBytes(yield* xattr(blob, "a"), pattern(3000, 1), "the xattr that was changed")
              })
            )
            yield* isClean(bdev)
          })
      )
    }

    check("a large blob is made with all that it has", () =>
      Effect.gen(function* () {
        const bdev = yield* device({ sizeBytes: 24 * MiB, blockSize: 4096 })
        const xattrs = { name: "large", more: pattern(3000, 1) }
        const id = yield* during(init(bdev, driver, { clusterSize: 4 * KiB, metadataPages: 64 }), (store) =>
          store.createId({ clusters: 2500, xattrs })
        )
        yield* during(load(bdev, driver), (store) =>
          during(store.open(id), (blob) =>
            Effect.gen(function* () {
              assert.strictEqual(blob.sizeBytes, 2500 * 4096)
              assert.deepStrictEqual([...(yield* blob.xattrs.entries).keys()].toSorted(), ["more", "name"])
            })
          )
        )
        yield* isClean(bdev)
      })
    )

    /** Runs `first`, whose first I/O of this type the device holds, and `second` when it has come there. */
    const besideHeld = <E, E2, R, R2>(
      { inject, letGo }: Effect.Success<ReturnType<typeof errorBdev>>,
      ioType: "read" | "unmap",
      first: Effect.Effect<void, E, R>,
      second: Effect.Effect<unknown, E2, R2>
    ) =>
      Effect.gen(function* () {
        yield* inject({ ioType, errorType: "pending", count: 1 })
        const before = yield* inFlight
        const one = yield* Effect.forkChild(first)
        yield* until(
          "the first request is in flight",
          Effect.map(inFlight, (count) => count > before)
        )
        yield* arrived
        const other = yield* Effect.forkChild(second)
        // Whatever does not wait for the first one has the time to end.
        for (let turn = 0; turn < 4; turn++) yield* arrived
        yield* letGo
        yield* Fiber.join(one)
        yield* Fiber.join(other)
      })

    check("a snapshot waits for the copy of a cluster that is under way", () =>
      Effect.gen(function* () {
        yield* needsResume
        // A file copies nothing by itself, so that a copy is a read and a write.
        const file = Bdev.createFile({ path: yield* scratchFile, size: 8 * MiB, blockSize: 512 })
        const held = yield* Effect.flatMap(file, errorBdevOn)
        const first = pattern(smallClusters, 7)
        const made = yield* during(init(held.bdev, driver), (store) =>
          Effect.gen(function* () {
            // Its metadata is page 0.
            const one = yield* store.create({ clusters: 1 })
            yield* one.writeBytes(0, first)
            const blob = yield* store.create({ clusters: 4, thin: true })
            yield* blob.writeBytes(0, pattern(2 * smallClusters, 1))
            const below = yield* store.snapshot(blob.id)
            // The blob has an extent page again, and SPDK counts on it for the next cluster.
            yield* blob.writeBytes(0, pattern(smallClusters, 2))
            const write = blob.writeBytes(smallClusters, pattern(smallClusters / 2, 3))
            yield* besideHeld(held, "read", write, store.snapshot(blob.id))
            yield* blob.sync
            return { one: one.id, blob: blob.id, below }
          })
        )
        yield* isClean(held.bdev)
        yield* during(load(held.bdev, driver), (store) =>
          Effect.gen(function* () {
            const bytesOf = (id: number, length: number) =>
              during(store.open(id), (blob) => blob.readBytes(0, length * smallClusters))
            sameBytes(yield* bytesOf(made.one, 1), first, "the first blob")
            sameBytes(yield* bytesOf(made.below, 2), pattern(2 * smallClusters, 1), "the first snapshot")
            const bytes = yield* bytesOf(made.blob, 2)
            sameBytes(bytes.subarray(0, smallClusters), pattern(smallClusters, 2), "a cluster that was its own")
            const half = smallClusters / 2
            sameBytes(bytes.subarray(smallClusters, smallClusters + half), pattern(half, 3), "what was written")
            const rest = pattern(2 * smallClusters, 1).subarray(smallClusters + half)
            sameBytes(bytes.subarray(smallClusters + half), rest, "what was copied")
          })
        )
      })
    )

    check("an inflation waits for an unmap of a cluster that is under way", () =>
      Effect.gen(function* () {
        yield* needsResume
        const held = yield* errorBdev(16_384)
        const clusters = 8
        const id = yield* during(init(held.bdev, driver), (store) =>
          during(store.create({ clusters, thin: true }), (blob) =>
            Effect.gen(function* () {
              yield* blob.writeBytes(0, pattern(blob.sizeBytes, 1))
              yield* blob.sync
              yield* besideHeld(held, "unmap", blob.unmap(3 * smallClusters, smallClusters), store.inflate(blob.id))
              assert.strictEqual((yield* blob.info).allocatedClusters, clusters)
              return blob.id
            })
          )
        )
        yield* isClean(held.bdev)
        yield* during(load(held.bdev, driver), (store) =>
          during(store.open(id), (blob) =>
            Effect.gen(function* () {
              const { allocatedClusters, isThin } = yield* blob.info
              assert.deepStrictEqual({ allocatedClusters, isThin }, { allocatedClusters: clusters, isThin: false })
              const bytes = yield* blob.readBytes(0, 3 * smallClusters)
              sameBytes(bytes, pattern(clusters * smallClusters, 1).subarray(0, bytes.length), "the others")
            })
          )
        )
      })
    )

    check("a cluster that is unmapped while the blob is inflated leaves no hole", () =>
      Effect.gen(function* () {
        const bdev = yield* device()
        const clusters = 8
        const id = yield* during(init(bdev, driver), (store) =>
          Effect.gen(function* () {
            const blob = yield* store.create({ clusters, thin: true })
            yield* blob.writeBytes(0, pattern(blob.sizeBytes, 1))
            const unmaps = Array.from({ length: clusters }, (_, at) => blob.unmap(at * smallClusters, smallClusters))
            yield* Effect.all([...unmaps.slice(0, 4), store.inflate(blob.id), ...unmaps.slice(4)], {
              concurrency: "unbounded",
              discard: true
            })
            assert.strictEqual((yield* blob.info).allocatedClusters, clusters)
            return blob.id
          })
        )
        yield* during(load(bdev, driver), (store) =>
          during(store.open(id), (blob) => blob.readBytes(0, clusters * smallClusters))
        )
        yield* isClean(bdev)
      })
    )

    const unwritten: Record<
      string,
      readonly [Effect.Effect<Bdev.Bdev, SpdkErrorOf<ReasonTag>, Scope.Scope | Spdk.Services>, Blobstore.InitOptions]
    > = {
      "a bdev that reads as zeroes where it was unmapped": [device(), {}],
      "a file without fallocate, with zeroFreed": [
        Effect.gen(function* () {
          const path = yield* scratchFile
          // An earlier life of the device.
          writeFileSync(path, new Uint8Array(8 * MiB).fill(0xee))
          return yield* Bdev.open(yield* Bdev.createFile({ path, blockSize: 512 }), { write: true })
        }),
        { zeroFreed: true, clearMethod: "write_zeroes" }
      ]
    }
    for (const [what, [open, options]] of Object.entries(unwritten)) {
      check(`what nobody has written of a thin blob's clusters reads as zeroes on ${what}`, () =>
        Effect.gen(function* () {
          const bdev = yield* open
          const clusters = 20
          const dirty = new Uint8Array(clusters * smallClusters).fill(0xff)
          /** Fills blobs, and gives their clusters back in every way there is. */
          const soil = (store: Blobstore.Blobstore) =>
            Effect.scoped(
              Effect.gen(function* () {
                const thick = during(store.create({ clusters }), (blob) =>
                  Effect.as(blob.writeBytes(0, dirty), blob.id)
                )
                yield* Effect.flatMap(thick, (id) => store.delete(id))
                const thin = yield* store.create({ clusters, thin: true })
                yield* thin.writeBytes(0, dirty)
                yield* thin.unmap(0, 5 * smallClusters)
                yield* thin.resize({ clusters: clusters - 5 })
                const snapshot = yield* store.snapshot(thin.id)
                yield* thin.writeBytes(0, dirty.subarray(0, (clusters - 5) * smallClusters))
                yield* store.delete(snapshot)
                return thin.id
              })
            ).pipe(Effect.flatMap((id) => store.delete(id)))
          const look = (store: Blobstore.Blobstore) =>
            during(store.create({ clusters: 60, thin: true }), (blob) =>
              Effect.gen(function* () {
                const under = yield* store.snapshot(blob.id)
                for (let at = 0; at < 60; at++) yield* blob.writeBytes(at * smallClusters + 5000, pattern(1000, at))
                for (let at = 0; at < 60; at++) {
                  const bytes = yield* blob.readBytes(at * smallClusters, smallClusters)
                  sameBytes(bytes.subarray(5000, 6000), pattern(1000, at), `what was written of cluster ${at}`)
                  assert.isTrue(
                    bytes.fill(0, 5000, 6000).every((byte) => byte === 0),
                    `the rest of cluster ${at}`
                  )
                }
                return [blob.id, under]
              })
            ).pipe(Effect.flatMap((ids) => Effect.forEach(ids, (id) => store.delete(id))))
          yield* during(init(bdev, driver, options), (store) => Effect.andThen(soil(store), look(store)))
          const { clearMethod: _, ...onLoad } = options
          yield* during(load(bdev, driver, onLoad), (store) => Effect.andThen(soil(store), look(store)))
        })
      )
    }

    /** Each writer has pieces of its own, so that the last completed write of a piece is known. */
    const storm = (
      store: Blobstore.Blobstore,
      random: RandomSource,
      change: (round: number, id: number, snapshots: Array<number>) => Effect.Effect<void, unknown>
    ) =>
      Effect.gen(function* () {
        const blob = yield* store.create({ size: writers * piecesEach * pieceBytes, thin: true })
        const model = new Uint32Array(writers * piecesEach)
        const state = { stop: false, next: 1 }
        const write = (who: number) =>
          Effect.gen(function* () {
            while (!state.stop) {
              const at = random.below(piecesEach) * writers + who
              const value = state.next++
              yield* blob.writeBytes(at * pieceBytes, fill(value))
              model[at] = value
            }
          })
        const fibers = yield* Effect.forEach(Array.from({ length: writers }).keys(), (who) =>
          Effect.forkChild(write(who))
        )
        const snapshots: Array<number> = []
        yield* Effect.ensuring(
          Effect.forEach(Array.from({ length: rounds }).keys(), (round) => change(round, blob.id, snapshots), {
            discard: true
          }),
          Effect.sync(() => {
            state.stop = true
          })
        )
        yield* Effect.forEach(fibers, Fiber.join, { discard: true })
        yield* blob.sync
        return { id: blob.id, model }
      })

    const changes: Record<string, (store: Blobstore.Blobstore, random: RandomSource) => Parameters<typeof storm>[2]> = {
      "snapshots that come and go": (store, random) => (_round, id, snapshots) =>
        Effect.gen(function* () {
          snapshots.push(yield* store.snapshot(id))
          if (snapshots.length < 4) return
          yield* Effect.forEach(snapshots.splice(random.below(3), 1), (one) => store.delete(one))
        }),
      "snapshots and inflations": (store) => (round, id) =>
        Effect.gen(function* () {
          const snapshot = yield* store.snapshot(id)
          yield* round % 2 === 0 ? store.inflate(id) : store.decouple(id)
          yield* store.delete(snapshot)
        })
    }

    for (const [what, change] of Object.entries(changes)) {
      check(`a blob that is written to all the while, under ${what}`, () =>
        seeded((random) =>
          Effect.gen(function* () {
            // Of a file, which copies by reads and writes: copies of clusters take a while.
            const path = yield* scratchFile
            const file = yield* Bdev.createFile({ path, size: 48 * MiB, blockSize: 512 })
            const bdev = yield* Bdev.open(file, { write: true })
            const first = pattern(MiB, 7)
            const { id, model, one } = yield* during(init(bdev, driver), (store) =>
              Effect.gen(function* () {
                // Its metadata is page 0.
                const blob = yield* store.create({ size: MiB })
                yield* blob.writeBytes(0, first)
                yield* blob.sync
                return { one: blob.id, ...(yield* storm(store, random, change(store, random))) }
              })
            )
            yield* isClean(bdev)
            yield* during(load(bdev, driver), (store) =>
              Effect.gen(function* () {
                sameBytes(yield* during(store.open(one), (blob) => blob.readBytes(0, MiB)), first, "the first blob")
                const blob = yield* store.open(id)
                for (const [at, value] of model.entries()) {
                  if (value === 0) continue
                  sameBytes(yield* blob.readBytes(at * pieceBytes, pieceBytes), fill(value), `piece ${at}`)
                }
              })
            )
          })
        )
      )
    }
  })
