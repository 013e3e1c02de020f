import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as CpuSet from "../src/CpuSet.ts"

const cores = (set: CpuSet.CpuSet) => [...set]
const parsed = (result: CpuSet.ParseResult) => cores(Result.getOrThrow(result))

/** Refused with InvalidArgument, whose field and rule are as told. */
const refused = (result: CpuSet.ParseResult, field: string, rule: string) => {
  assert.isTrue(Result.isFailure(result))
  if (Result.isSuccess(result)) return
  assert.strictEqual(result.failure.reason._tag, "InvalidArgument")
  assert.strictEqual(result.failure.reason.field, field)
  assert.include(result.failure.reason.rule, rule)
}

describe("CpuSet notations", () => {
  it.each([
    ["0x3", [0, 1]],
    ["0X27", [0, 1, 2, 5]],
    ["27", [0, 1, 2, 5]],
    [" 0x1 ", [0]],
    ["0x0", []],
    ["ff,00000000", [32, 33, 34, 35, 36, 37, 38, 39]],
    [`0x1${"0".repeat(16)}`, [64]],
    [`0x8${"0".repeat(255)}`, [1023]],
    [`0x${"0".repeat(300)}1`, [0]]
  ])("reads the mask %s", (mask, expected) => {
    assert.deepStrictEqual(parsed(CpuSet.fromMask(mask)), expected)
    assert.deepStrictEqual(parsed(CpuSet.parse(mask)), expected)
  })

  it.each([
    ["[0-2,5]", [0, 1, 2, 5]],
    ["[ 0 - 2 , 5 ]", [0, 1, 2, 5]],
    ["[5,0-2]", [0, 1, 2, 5]],
    ["[7]", [7]],
    ["[3-3]", [3]],
    ["[1023]", [1023]],
    ["[0,0,0]", [0]],
    ["[]", []],
    [" [1] ", [1]]
  ])("reads the list %s", (list, expected) => {
    assert.deepStrictEqual(parsed(CpuSet.fromList(list)), expected)
    assert.deepStrictEqual(parsed(CpuSet.parse(list)), expected)
  })

  it.each([
    ["", "hexadecimal"],
    ["0x", "hexadecimal"],
    ["0xg", "hexadecimal"],
    ["-1", "hexadecimal"],
    ["0x1 2", "hexadecimal"],
    [",", "hexadecimal"],
    [`0x1${"0".repeat(256)}`, "above 1023"]
  ])("refuses the mask %s", (mask, rule) => refused(CpuSet.fromMask(mask), "mask", rule))

  it.each([
    ["[", "brackets"],
    ["0-2", "brackets"],
    ["[0-2", "brackets"],
    ["[0-2]x", "brackets"],
    ["[,]", "neither"],
    ["[1,]", "neither"],
    ["[1-]", "neither"],
    ["[-1]", "neither"],
    ["[1-2-3]", "neither"],
    ["[a]", "neither"],
    ["[0x1]", "neither"],
    ["[1.5]", "neither"],
    ["[1024]", "above 1023"],
    ["[0-99999999999999999999]", "above 1023"],
    ["[3-1]", "backwards"]
  ])("refuses the list %s", (list, rule) => refused(CpuSet.fromList(list), "list", rule))

  it.each([-1, 1024, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("refuses the core %d", (core) => {
    refused(CpuSet.make([0, core]), "core", "0 to 1023")
    assert.throws(() => CpuSet.makeUnsafe([core]), /core/)
  })

  it("writes both", () => {
    const set = CpuSet.makeUnsafe([5, 0, 1, 2, 63])
    assert.strictEqual(CpuSet.toMask(set), "0x8000000000000027")
    assert.strictEqual(CpuSet.toList(set), "[0-2,5,63]")
    assert.strictEqual(`${set}`, "[0-2,5,63]")
    assert.strictEqual(JSON.stringify({ set }), `{"set":"[0-2,5,63]"}`)
    assert.strictEqual(CpuSet.toMask(CpuSet.empty), "0x0")
    assert.strictEqual(CpuSet.toList(CpuSet.empty), "[]")
  })
})

const AnyCores = Arbitrary.array(Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1023 }))), {
  maxLength: 40
})

describe("CpuSet as a set", () => {
  it.prop("reads what it writes, in both notations", [AnyCores], ([list]) => {
    const set = CpuSet.makeUnsafe(list)
    assert.deepStrictEqual(parsed(CpuSet.fromMask(CpuSet.toMask(set))), cores(set))
    assert.deepStrictEqual(parsed(CpuSet.fromList(CpuSet.toList(set))), cores(set))
  })

  it.prop("agrees with Set on its operations", [AnyCores, AnyCores], ([left, right]) => {
    const a = CpuSet.makeUnsafe(left)
    const b = CpuSet.makeUnsafe(right)
    const inA = new Set(left)
    const inB = new Set(right)
    const all = [...new Set([...left, ...right])].toSorted((x, y) => x - y)
    assert.deepStrictEqual(cores(CpuSet.union(a, b)), all)
    assert.deepStrictEqual(
      cores(CpuSet.intersection(a, b)),
      all.filter((core) => inA.has(core) && inB.has(core))
    )
    assert.deepStrictEqual(
      cores(CpuSet.difference(a, b)),
      all.filter((core) => inA.has(core) && !inB.has(core))
    )
    assert.deepStrictEqual(
      cores(CpuSet.symmetricDifference(a, b)),
      all.filter((core) => inA.has(core) !== inB.has(core))
    )
    assert.strictEqual(CpuSet.size(a), inA.size)
    assert.strictEqual(
      CpuSet.isSubset(a, b),
      [...inA].every((core) => inB.has(core))
    )
    assert.isTrue(CpuSet.isSubset(CpuSet.intersection(a, b), a))
    assert.strictEqual(CpuSet.first(a), cores(a)[0])
    assert.strictEqual(CpuSet.isEmpty(a), inA.size === 0)
    for (const core of [0, 512, 1023, ...left]) assert.strictEqual(CpuSet.has(a, core), inA.has(core))
  })

  it("is equal by value, and its operands stay what they were", () => {
    const a = CpuSet.makeUnsafe([0, 1])
    const b = Result.getOrThrow(CpuSet.parse("0x3"))
    assert.isTrue(Equal.equals(a, b))
    assert.strictEqual(Hash.hash(a), Hash.hash(b))
    assert.isTrue(CpuSet.equals(a, b))
    assert.isFalse(Equal.equals(a, CpuSet.makeUnsafe([0])))
    CpuSet.union(a, CpuSet.makeUnsafe([9]))
    assert.deepStrictEqual(cores(a), [0, 1])
  })

  it("has no core outside its range", () => {
    const a = CpuSet.makeUnsafe([0])
    for (const core of [-1, 1024, 0.5, Number.NaN]) assert.isFalse(CpuSet.has(a, core))
  })

  it("is known by its guard", () => {
    assert.isTrue(CpuSet.isCpuSet(CpuSet.empty))
    assert.isFalse(CpuSet.isCpuSet({ bits: 0n }))
  })
})

describe("CpuSetFromString", () => {
  it("decodes both notations and encodes the list", () => {
    assert.deepStrictEqual(cores(Schema.decodeSync(CpuSet.CpuSetFromString)("0x3")), [0, 1])
    assert.deepStrictEqual(cores(Schema.decodeSync(CpuSet.CpuSetFromString)("[0-1]")), [0, 1])
    assert.strictEqual(Schema.encodeSync(CpuSet.CpuSetFromString)(CpuSet.makeUnsafe([0, 1])), "[0-1]")
  })

  it("says what is wrong with a malformed one", () => {
    const exit = Schema.decodeExit(CpuSet.CpuSetFromString)("[3-1]")
    assert.isTrue(Exit.isFailure(exit))
    assert.include(String(exit), "runs backwards, 3-1")
  })
})
