/**
 * How the host fails: with what a controller has said where it has said something, and never without an end.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Outside from "../../engine/outside.ts"
import { Corrupted, IoFailed, SpdkError, TimedOut } from "../../../SpdkError.ts"
import type { Malformed } from "../../nvme/wire/struct.ts"

/** No connection, or none any more. */
export const lost = (operation: string, resource: string, detail: string): SpdkError =>
  new SpdkError({ reason: new IoFailed({ operation, resource, detail, errno: "ENOTCONN", errnoCode: 107 }) })

/** What a controller sent, decoded, or `Corrupted`. */
export const decodedOr = <A>(
  operation: string,
  resource: string,
  result: Result.Result<A, Malformed>
): Effect.Effect<A, SpdkError> =>
  Result.isSuccess(result)
    ? Effect.succeed(result.success)
    : Effect.fail(new SpdkError({ reason: new Corrupted({ operation, resource, ...result.failure }) }))

/** Longer than the limit, so that an answer which came while this process stood still is read before the limit counts. */
const graceMillis = 20

/** `TimedOut` after so long; 0 is no limit. What runs is interrupted. */
export const limited = <A>(
  operation: string,
  resource: string,
  limitMillis: number,
  run: Effect.Effect<A, SpdkError>
): Effect.Effect<A, SpdkError> =>
  limitMillis === 0
    ? run
    : Effect.raceFirst(
        run,
        Outside.sleep(limitMillis).pipe(
          Effect.andThen(Outside.sleep(graceMillis)),
          Effect.andThen(Effect.fail(new SpdkError({ reason: new TimedOut({ operation, resource, limitMillis }) })))
        )
      )
