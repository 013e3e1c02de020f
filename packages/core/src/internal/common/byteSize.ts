/**
 * Sizes as people write them. The only module that knows effect/ByteSize, which is unstable.
 */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { failInvalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"

/** The number of bytes, a safe integer above 0. */
export const bytesOf = (
  operation: string,
  field: string,
  size: number | string
): Effect.Effect<number, SpdkError<InvalidArgument>> => {
  const bytes = typeof size === "string" ? fromString(size) : size
  return Number.isSafeInteger(bytes) && bytes > 0
    ? Effect.succeed(bytes)
    : failInvalid(operation, field, `is neither a whole number of bytes above 0 nor a size like "256 MiB"`, size)
}

const fromString = (size: string): number =>
  /^\s*\d+\s*$/.test(size)
    ? Number(size)
    : Option.getOrElse(Option.flatMap(ByteSize.fromString(size), ByteSize.toNumber), () => Number.NaN)
