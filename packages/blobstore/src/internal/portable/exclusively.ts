/** Changes of what is read through: they wait for everybody who reads through it. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { BlobState } from "./blob.ts"
import type { Store } from "./store.ts"

/**
 * Runs a change of what lies under the blob, under the store's lock and with the gates of the blob and of every open blob above it
 * closed: a read of theirs that is under way ends first, and finds its clusters where they were. Gates are taken in the order
 * of ids, so that two changes never wait for each other.
 */
export const exclusively = <A, E>(store: Store, blob: BlobState, change: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const readers = readersOf(store, blob)
    const run = store.change(
      Effect.suspend((): Effect.Effect<Option.Option<A>, E> => {
        // Who was opened while the gates were waited for reads without one.
        const isSame = readersOf(store, blob).every((reader) => readers.includes(reader))
        return isSame ? Effect.asSome(change) : Effect.succeedNone
      })
    )
    const gated = readers.reduceRight((inner, reader) => reader.gate.exclusive(inner), run)
    return Effect.flatMap(gated, (result) =>
      Option.isSome(result) ? Effect.succeed(result.value) : exclusively(store, blob, change)
    )
  })

const readersOf = (store: Store, blob: BlobState): ReadonlyArray<BlobState> => {
  const readers = new Set([blob])
  for (const open of store.open.values()) {
    const path: Array<BlobState> = []
    for (let at: BlobState | undefined = open; at !== undefined && !path.includes(at);) {
      path.push(at)
      if (readers.has(at)) {
        for (const one of path) readers.add(one)
        break
      }
      at = at.backing?._tag === "Blob" ? at.backing.blob : undefined
    }
  }
  return [...readers].toSorted((a, b) => a.id - b.id)
}
