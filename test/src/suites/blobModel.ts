/**
 * The same random commands on every driver and engine there is, which must all give the same results: values, reasons, ids,
 * free clusters, bytes. The seeds are fixed numbers, so that every run is the same; a failure prints what replays it.
 */
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import type * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { prepare, type Transcript, transcript } from "../support/blobCommands.ts"
import type { BlobSuite } from "../support/blobs.ts"
import { type EngineLayer, long } from "../support/engines.ts"
import { contract, leavesNothing } from "../support/harness.ts"

const given = process.env["EFFECT_SPDK_SEED"]
/** One, or a range of them: 21-220. */
const [first = 1, last = first] = given?.split("-").map(Number) ?? [1, long ? 1000 : 17]
const seeds: ReadonlyArray<number> = Array.from({ length: last - first + 1 }, (_, index) => first + index)
const commands = 60

/** The first line that differs, with what led to it. */
const expectSame = (reference: Transcript, other: Transcript, who: string): void => {
  const length = Math.max(reference.lines.length, other.lines.length)
  for (let at = 0; at < length; at++) {
    if (reference.lines[at] === other.lines[at]) continue
    const before = reference.lines.slice(0, at).join("\n  ")
    assert.fail(
      `EFFECT_SPDK_SEED=${reference.seed}: after\n  ${before}\nthe reference has\n  ${reference.lines[at]}\nand ${who} has\n  ${other.lines[at]}`
    )
  }
}

const on = (engine: Context.Context<Spdk.Services>, seed: number, driver: Blobstore.DriverKind) =>
  Effect.provideContext(leavesNothing(transcript(seed, commands, driver)), engine)

/** One driver on one engine: nothing dies, everything is given back, and the same seed gives the same results again. */
export const suite: BlobSuite = (name, layer, _capabilities, driver) =>
  contract(name, layer, (check) => {
    for (const seed of seeds.slice(0, 3)) {
      check(`random commands of seed ${seed} come to the same end twice`, () =>
        Effect.gen(function* () {
          yield* prepare
          const [first, second] = [yield* transcript(seed, commands, driver), yield* transcript(seed, commands, driver)]
          expectSame(first, second, "the second run")
          for (const line of first.lines) assert.notInclude(line, "died")
        })
      )
    }
  })

/** libspdk's own driver, the portable one over libspdk, and the portable one over the embedded engine. */
export const suiteOfAll = (name: string, libspdk: EngineLayer, embedded: EngineLayer): void =>
  contract(name, libspdk, (check) => {
    check(
      `${seeds.length} seeds, ${seeds[0]} to ${seeds.at(-1)}, give the same results on all drivers and engines`,
      () =>
        Effect.gen(function* () {
          const real = yield* Effect.context<Spdk.Services>()
          const small = yield* Layer.build(embedded)
          yield* Effect.provideContext(prepare, real)
          yield* Effect.provideContext(prepare, small)
          for (const seed of seeds) {
            const reference = yield* on(real, seed, "libspdk")
            expectSame(reference, yield* on(real, seed, "portable"), "the portable driver over libspdk")
            expectSame(reference, yield* on(small, seed, "portable"), "the portable driver over the embedded engine")
          }
        }),
      { timeoutMillis: long ? 3_600_000 : 120_000 }
    )
  })
