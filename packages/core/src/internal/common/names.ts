/**
 * The one rule for names: of bdevs, controllers, threads, pollers. A C string ends at NUL, SPDK's JSON parser closes the
 * connection on a lone surrogate, and SPDK cuts names of threads and pollers silently at 256 bytes
 * (`SPDK_MAX_THREAD_NAME_LEN`, `SPDK_MAX_POLLER_NAME_LEN`).
 */
import * as Effect from "effect/Effect"
import { failInvalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"

const maxNameBytes = 256

/** Why a text cannot be sent to SPDK at all. */
export const textRule = (text: string): string | undefined =>
  /\p{Surrogate}/u.test(text) ? "contains half of a surrogate pair, which UTF-8 does not have" : undefined

/** Why a text is no name. */
export const nameRule = (name: string): string | undefined => {
  if (typeof name !== "string") return "is not a string"
  if (name === "") return "is empty"
  if (name.includes("\0")) return "contains a NUL character"
  // No character has less than one byte: who passes a text of megabytes is told so at once.
  if (name.length > maxNameBytes || Buffer.byteLength(name) > maxNameBytes) {
    return `is longer than ${maxNameBytes} bytes`
  }
  return textRule(name)
}

export const checkName = (
  operation: string,
  name: string,
  field = "name"
): Effect.Effect<string, SpdkError<InvalidArgument>> => {
  const rule = nameRule(name)
  return rule === undefined ? Effect.succeed(name) : failInvalid(operation, field, rule, name)
}
