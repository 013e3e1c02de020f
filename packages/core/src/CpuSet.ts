/**
 * Sets of CPU cores, for placing threads and reactors. A set is immutable and compares by value. It reads and prints
 * both notations of SPDK: the mask `0x27` and the list `[0-2,5]`.
 *
 * Functions that can fail return a `Result`. `Effect.fromResult(CpuSet.parse(text))` makes an Effect of it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Hash from "effect/Hash"
import { NodeInspectSymbol } from "effect/Inspectable"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { invalid, type InvalidArgument, type SpdkError } from "./SpdkError.ts"

const TypeId = "~effect-spdk/CpuSet"

/** The largest core number SPDK's cpusets hold. @since 0.1.0 @category constants */
export const maxCore = 1023

/** The result of a parser. @since 0.1.0 @category models */
export type ParseResult = Result.Result<CpuSet, SpdkError<InvalidArgument>>

/**
 * A set of core numbers. Iterates in ascending order. Prints as a list.
 *
 * @since 0.1.0
 * @category models
 */
export class CpuSet implements Iterable<number>, Equal.Equal {
  readonly [TypeId] = TypeId

  /** Bit n stands for core n. */
  readonly bits: bigint

  /** Only for this module. Other modules use `make`, which checks the cores. */
  constructor(bits: bigint) {
    this.bits = bits
  }

  get size(): number {
    let size = 0
    for (const _ of this) size++
    return size
  }

  *[Symbol.iterator](): Iterator<number> {
    let core = 0
    for (let rest = this.bits; rest !== 0n; rest >>= 1n, core++) {
      if ((rest & 1n) === 1n) yield core
    }
  }

  [Equal.symbol](that: Equal.Equal): boolean {
    return isCpuSet(that) && that.bits === this.bits
  }

  [Hash.symbol](): number {
    return Hash.string(toMask(this))
  }

  toString(): string {
    return toList(this)
  }

  toJSON(): string {
    return toList(this)
  }

  [NodeInspectSymbol](): string {
    return `CpuSet(${toList(this)})`
  }
}

/** @since 0.1.0 @category guards */
export const isCpuSet = (u: unknown): u is CpuSet => Predicate.hasProperty(u, TypeId)

/** @since 0.1.0 @category constructors */
export const empty: CpuSet = new CpuSet(0n)

/**
 * The set of the given cores. Each core is an integer from 0 to 1023.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (cores: Iterable<number>): ParseResult => {
  let bits = 0n
  for (const core of cores) {
    if (!isCore(core)) return refuse("CpuSet.make", "core", `is not an integer from 0 to ${maxCore}`, core)
    bits |= 1n << BigInt(core)
  }
  return Result.succeed(new CpuSet(bits))
}

/** `make` for cores that the program itself names. Throws the `SpdkError`. @since 0.1.0 @category constructors */
export const makeUnsafe = (cores: Iterable<number>): CpuSet => Result.getOrThrow(make(cores))

/**
 * Parses a hexadecimal mask: `0x3`, `3`, or Linux' `ff,00000000`. A core above 1023 is an error here. SPDK ignores such
 * a core.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromMask = (mask: string): ParseResult => {
  const digits = mask.trim().replace(/^0x/i, "").replaceAll(",", "")
  if (!/^[0-9a-f]+$/i.test(digits)) {
    return refuse("CpuSet.fromMask", "mask", "is not a hexadecimal core mask such as 0x3", mask)
  }
  const significant = digits.replace(/^0+/, "")
  if (significant.length > (maxCore + 1) / 4) {
    return refuse("CpuSet.fromMask", "mask", `names a core above ${maxCore}`, mask)
  }
  return Result.succeed(new CpuSet(BigInt(`0x0${significant}`)))
}

/**
 * Parses a list: `[0-2,5]`. Blanks are allowed around numbers. `[]` is the empty set, which SPDK itself refuses.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromList = (list: string): ParseResult => {
  const operation = "CpuSet.fromList"
  const trimmed = list.trim()
  if (!trimmed.startsWith("[") || !trimmed.endsWith("]") || trimmed.length < 2) {
    return refuse(operation, "list", "is not a core list in brackets such as [0-2,5]", list)
  }
  const inside = trimmed.slice(1, -1).trim()
  if (inside === "") return Result.succeed(empty)
  let bits = 0n
  for (const item of inside.split(",")) {
    const match = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(item)
    if (match === null) return refuse(operation, "list", `has "${item}", which is neither a core nor a range`, list)
    const first = Number(match[1])
    const last = match[2] === undefined ? first : Number(match[2])
    if (first > maxCore || last > maxCore) return refuse(operation, "list", `names a core above ${maxCore}`, list)
    if (first > last) return refuse(operation, "list", `has a range that runs backwards, ${first}-${last}`, list)
    bits |= ((1n << BigInt(last - first + 1)) - 1n) << BigInt(first)
  }
  return Result.succeed(new CpuSet(bits))
}

/**
 * Parses either notation, as SPDK's `-m` does. A text with a leading bracket is a list.
 *
 * @since 0.1.0
 * @category conversions
 */
export const parse = (text: string): ParseResult => (text.trim().startsWith("[") ? fromList(text) : fromMask(text))

/** `0x27`; `0x0` when empty. @since 0.1.0 @category conversions */
export const toMask = (self: CpuSet): string => `0x${self.bits.toString(16)}`

/** `[0-2,5]`; `[]` when empty. @since 0.1.0 @category conversions */
export const toList = (self: CpuSet): string => {
  const ranges: Array<string> = []
  let first: number | undefined
  let last = -1
  const close = () => {
    if (first !== undefined) ranges.push(first === last ? `${first}` : `${first}-${last}`)
  }
  for (const core of self) {
    if (core !== last + 1 || first === undefined) {
      close()
      first = core
    }
    last = core
  }
  close()
  return `[${ranges.join(",")}]`
}

/** @since 0.1.0 @category combinators */
export const union = (self: CpuSet, that: CpuSet): CpuSet => new CpuSet(self.bits | that.bits)

/** @since 0.1.0 @category combinators */
export const intersection = (self: CpuSet, that: CpuSet): CpuSet => new CpuSet(self.bits & that.bits)

/** The cores that are in `self` and not in `that`. @since 0.1.0 @category combinators */
export const difference = (self: CpuSet, that: CpuSet): CpuSet => new CpuSet(self.bits & ~that.bits)

/** The cores that are in exactly one of the two sets. @since 0.1.0 @category combinators */
export const symmetricDifference = (self: CpuSet, that: CpuSet): CpuSet => new CpuSet(self.bits ^ that.bits)

/** @since 0.1.0 @category elements */
export const has = (self: CpuSet, core: number): boolean => isCore(core) && ((self.bits >> BigInt(core)) & 1n) === 1n

/** @since 0.1.0 @category elements */
export const size = (self: CpuSet): number => self.size

/** @since 0.1.0 @category elements */
export const isEmpty = (self: CpuSet): boolean => self.bits === 0n

/** Whether every core of `self` is in `that`. @since 0.1.0 @category elements */
export const isSubset = (self: CpuSet, that: CpuSet): boolean => (self.bits & ~that.bits) === 0n

/** @since 0.1.0 @category elements */
export const equals = (self: CpuSet, that: CpuSet): boolean => self.bits === that.bits

/** The lowest core. `undefined` when the set is empty. @since 0.1.0 @category elements */
export const first = (self: CpuSet): number | undefined => {
  for (const core of self) return core
  return undefined
}

/**
 * A schema that decodes either notation to a `CpuSet`, and encodes to the list.
 *
 * @since 0.1.0
 * @category schemas
 */
export const CpuSetFromString = Schema.String.pipe(
  Schema.decodeTo(
    Schema.declare(isCpuSet, { expected: "CpuSet" }),
    SchemaTransformation.transformEffect<CpuSet, string>({
      decode: (text, options) =>
        Result.match(parse(text), {
          onSuccess: Effect.succeed,
          onFailure: ({ reason }) => {
            const message = `a core mask or list, but it ${reason.rule}`
            return Effect.fail(new SchemaIssue.InvalidValue({ expected: message }, text, options))
          }
        }),
      encode: (set) => Effect.succeed(toList(set))
    })
  )
)

const isCore = (core: number): boolean => Number.isInteger(core) && core >= 0 && core <= maxCore

const refuse = (operation: string, field: string, rule: string, value: unknown): ParseResult =>
  Result.fail(invalid(operation, field, rule, value))
