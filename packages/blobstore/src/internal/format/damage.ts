/** What decoding answers when bytes are not what the format says: a value, since untrusted bytes are an ordinary input. */
import * as Result from "effect/Result"

export interface Damage {
  /** The structure, as "metadata page 7" or "super block". */
  readonly where: string
  /** What does not hold, so that `${where} ${rule}` is a sentence. */
  readonly rule: string
  /** In bytes from the start of the structure, where one place can be named. */
  readonly offset?: number
}

export type Decoded<A> = Result.Result<A, Damage>

/** A metadata page by its index, as the name of a place. Names are made only when something is wrong there. */
export type Where = string | number

export const nameOf = (where: Where): string => (typeof where === "number" ? `metadata page ${where}` : where)

export const damaged = (place: Where, rule: string, offset?: number): Result.Result<never, Damage> => {
  const where = nameOf(place)
  return Result.fail(offset === undefined ? { where, rule } : { where, rule, offset })
}
