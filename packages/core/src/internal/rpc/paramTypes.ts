/**
 * The scalars of SPDK's RPC parameters. The generated modules are made of these.
 */
import * as Schema from "effect/Schema"

/** For methods without parameters. */
export type NoParams = { readonly [name: string]: never }

export const noParams: Schema.Codec<NoParams> = Schema.Record(Schema.String, Schema.Never)

const integer = (minimum: number, maximum: number, name: string): Schema.Codec<number> =>
  Schema.Number.check(
    Schema.makeFilter((value: number) =>
      Number.isInteger(value) && value >= minimum && value <= maximum
        ? undefined
        : `Expected ${name}, an integer from ${minimum} to ${maximum}, got ${value}`
    )
  )

export const uint8 = integer(0, 0xff, "uint8")
export const uint16 = integer(0, 0xffff, "uint16")
export const uint32 = integer(0, 0xffff_ffff, "uint32")
export const int32 = integer(-0x8000_0000, 0x7fff_ffff, "int32")

const maxUint64 = 0xffff_ffff_ffff_ffffn

/**
 * A safe integer, or a bigint, which goes out as a JSON number with all of its digits. A number above 2^53 is
 * refused: it may not be the one that was meant.
 */
export const uint64: Schema.Codec<number | bigint> = Schema.Union([
  integer(0, Number.MAX_SAFE_INTEGER, "uint64"),
  Schema.BigInt.check(
    Schema.makeFilter((value: bigint) =>
      value >= 0n && value <= maxUint64 ? undefined : `Expected uint64, an integer from 0 to ${maxUint64}, got ${value}`
    )
  )
])

export const uuid: Schema.Codec<string> = Schema.String.check(
  Schema.isPattern(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, {
    expected: "a UUID such as 6ba7b810-9dad-11d1-80b4-00c04fd430c8"
  })
)
