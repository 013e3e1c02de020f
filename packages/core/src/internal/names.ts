/**
 * Names of threads and pollers. SPDK cuts longer ones silently (`SPDK_MAX_THREAD_NAME_LEN`,
 * `SPDK_MAX_POLLER_NAME_LEN`), and a C string ends at NUL.
 */
import * as Effect from "effect/Effect"
import { failInvalid, type InvalidArgument, type SpdkError } from "../SpdkError.ts"

const maxNameBytes = 256

export const checkName = (operation: string, name: string): Effect.Effect<string, SpdkError<InvalidArgument>> => {
  const refuse = (rule: string) => failInvalid(operation, "name", rule, name)
  if (name === "") return refuse("is empty")
  if (name.includes("\0")) return refuse("contains a NUL character")
  if (Buffer.byteLength(name) > maxNameBytes) return refuse(`is longer than ${maxNameBytes} bytes`)
  return Effect.succeed(name)
}
