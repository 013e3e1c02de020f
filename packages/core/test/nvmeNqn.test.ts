import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as NvmeNqn from "../src/NvmeNqn.ts"

const prefix = "nqn.2016-06.io.spdk:"
const uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"

const accepted = [
  "nqn.2016-06.io.spdk:cnode1",
  "nqn.2014-08.org.nvmexpress.discovery",
  `nqn.2014-08.org.nvmexpress:uuid:${uuid}`,
  "nqn.2016-01.a:b",
  "nqn.2016-12.io.s-p--dk1:x:y:z",
  `${prefix}größe ☃ 🗿`,
  prefix + "x".repeat(223 - prefix.length),
  `nqn.2016-06.${"a".repeat(63)}.b:x`
]

const refused: ReadonlyArray<readonly [nqn: unknown, rule: RegExp]> = [
  [undefined, /not a string/],
  [7, /not a string/],
  ["", /shorter than the 11 bytes/],
  ["nqn.2016-0", /shorter than the 11 bytes/],
  [prefix + "x".repeat(224 - prefix.length), /longer than 223 bytes: it has 224/],
  [prefix + "ä".repeat(102), /longer than 223 bytes: it has 224/],
  ["iqn.2016-06.io.spdk:x", /does not start with "nqn."/],
  ["NQN.2016-06.io.spdk:x", /does not start with "nqn."/],
  ["nqn.16-06.io.spdk:disk", /no date/],
  ["nqn.2016-6.io.spdk:disk", /no date/],
  ["nqn.2016.06.io.spdk:x", /no date/],
  ["nqn.2016-06:x.io.spdk", /no date/],
  ["nqn.2016-00.io.spdk:x", /month 00/],
  ["nqn.2016-13.io.spdk:x", /month 13/],
  ["nqn.2016-06.io.spdk", /no ":" behind the domain/],
  ["nqn.2016-06.io.spdk:", /no name behind/],
  ["nqn.2016-06.:x", /empty label/],
  ["nqn.2016-06.io..spdk:x", /empty label/],
  ["nqn.2016-06.io.:x", /empty label/],
  ["nqn.2016-06.io.3par:x", /"3par" in its domain, which does not start with a letter/],
  ["nqn.2016-06.io.-a:x", /does not start with a letter/],
  ["nqn.2016-06.io.a-:x", /"a-" in its domain, which ends in a dash/],
  ["nqn.2016-06.a-.io:x", /ends in a dash/],
  ["nqn.2016-06.io.a_b:x", /other characters/],
  ["nqn.2016-06.io.ä:x", /letter/],
  [`nqn.2016-06.${"a".repeat(64)}.b:x`, /more than 63 characters/],
  [`${prefix}a\0b`, /NUL/],
  [`${prefix}\ud800`, /not UTF-8/],
  [`nqn.2014-08.org.nvmexpress:uuid:${uuid}0`, /no UUID/],
  [`nqn.2014-08.org.nvmexpress:uuid:${uuid.slice(1)}`, /no UUID/],
  ["nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bfg", /no UUID/],
  ["nqn.2014-08.org.nvmexpress.discovery2", /no ":"/]
]

describe("NvmeNqn", () => {
  it("takes the names that the specification has", () => {
    for (const nqn of accepted) {
      assert.isTrue(NvmeNqn.isNqn(nqn), nqn)
      assert.strictEqual(Result.getOrThrow(NvmeNqn.parse(nqn)), nqn)
      assert.strictEqual(Schema.decodeUnknownSync(NvmeNqn.Nqn)(nqn), nqn)
    }
  })

  it("refuses all others, and names the rule", () => {
    for (const [nqn, rule] of refused) {
      assert.isFalse(NvmeNqn.isNqn(nqn), String(nqn))
      assert.throws(() => Schema.decodeUnknownSync(NvmeNqn.Nqn)(nqn))
      // A caller without types.
      const result = NvmeNqn.parse(nqn as string)
      if (Result.isSuccess(result)) assert.fail(`${String(nqn)} was taken`)
      assert.strictEqual(result.failure.reason.field, "nqn")
      assert.match(result.failure.reason.rule, rule)
    }
  })

  it("makes names of UUIDs", () => {
    assert.strictEqual(Result.getOrThrow(NvmeNqn.fromUuid(uuid)), `nqn.2014-08.org.nvmexpress:uuid:${uuid}`)
    assert.isTrue(Result.isFailure(NvmeNqn.fromUuid("1234")))
  })
})
