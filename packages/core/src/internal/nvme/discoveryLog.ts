/**
 * The discovery log of a discovery controller, in pieces, and read again when it has changed in between.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Busy, Corrupted, SpdkError, type SpdkErrorOf } from "../../SpdkError.ts"
import {
  decodeDiscoveryEntry,
  decodeDiscoveryHeader,
  type DiscoveryEntry,
  discoveryEntryBytes,
  discoveryHeaderBytes
} from "./wire/logPages.ts"
import type { Malformed } from "./wire/struct.ts"

/** How often the log may change while it is read. */
const maxGenerations = 16

export interface DiscoveryLogSource<E> {
  readonly operation: string
  readonly resource: string
  /** So much of the log page; offset and length are multiples of 1,024. */
  readonly read: (offsetBytes: number, lengthBytes: number) => Effect.Effect<Uint8Array, E>
  /** The most that is asked for at once; not below 1,024. */
  readonly maxReadBytes: number
}

type LogError = SpdkErrorOf<"Busy" | "Corrupted">

/** The header, the entries, and the header again: another generation means that the entries may be a mixture, and `Busy` at last. */
export const readDiscoveryLog = Effect.fnUntraced(function* <E>(
  source: DiscoveryLogSource<E>
): Effect.fn.Return<ReadonlyArray<DiscoveryEntry>, E | LogError> {
  const { maxReadBytes, operation, read, resource } = source
  const decoded = <A>(result: Result.Result<A, Malformed>): Effect.Effect<A, LogError> =>
    Result.isSuccess(result)
      ? Effect.succeed(result.success)
      : Effect.fail(new SpdkError({ reason: new Corrupted({ operation, resource, ...result.failure }) }))
  const readHeader = Effect.flatMap(read(0, discoveryHeaderBytes), (bytes) => decoded(decodeDiscoveryHeader(bytes)))
  const most = Math.floor(maxReadBytes / discoveryEntryBytes)
  for (let attempt = 0; attempt < maxGenerations; attempt++) {
    const { generation, records } = yield* readHeader
    const entries: Array<DiscoveryEntry> = []
    while (entries.length < records) {
      const count = Math.min(most, records - entries.length)
      const offset = discoveryHeaderBytes + entries.length * discoveryEntryBytes
      const bytes = yield* read(offset, count * discoveryEntryBytes)
      for (let i = 0; i < count; i++) {
        entries.push(yield* decoded(decodeDiscoveryEntry(bytes.subarray(i * discoveryEntryBytes))))
      }
    }
    if ((yield* readHeader).generation === generation) return entries
  }
  const detail = `the discovery log changed ${maxGenerations} times while it was read`
  return yield* Effect.fail(new SpdkError({ reason: new Busy({ operation, resource, detail }) }))
})
