import { assert, describe, it } from "@effect/vitest"
import * as Frames from "../src/internal/rpc/jsonFrames.ts"
import { makeRandom, type RandomSource, withSeed } from "./support/random.ts"

/** What a fresh splitter makes of these chunks: the messages, and the error that stopped it. */
const split = (chunks: ReadonlyArray<Uint8Array>, limits?: Frames.FrameLimits) => {
  const splitter = Frames.make(limits)
  const messages: Array<unknown> = []
  let error: Frames.FrameError | undefined
  try {
    for (const chunk of chunks) splitter.push(chunk, (message) => messages.push(message))
  } catch (caught) {
    if (!(caught instanceof Frames.FrameError)) throw caught
    error = caught
  }
  return { messages, error, isInside: splitter.unfinished() !== undefined }
}

const bytes = (text: string) => new TextEncoder().encode(text)

const inPieces = (whole: Uint8Array, random: RandomSource): Array<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  // Small pieces find what happens at a boundary, large ones what happens when many messages come at once.
  const limit = random.pick([1, 2, 7, 64, 4096])
  for (let at = 0; at < whole.length;) {
    const length = 1 + random.below(limit)
    pieces.push(whole.subarray(at, at + length))
    at += length
  }
  return pieces
}

const nastyStrings = [
  "",
  "}{",
  '"',
  "\\",
  '\\"',
  "]}",
  "\u0000",
  "é漢字🙂",
  "\n\t",
  '{"a":1}',
  "\\u0022",
  "x".repeat(300)
]

const anyJson = (random: RandomSource, depth: number): unknown => {
  switch (random.below(depth > 4 ? 5 : 7)) {
    case 0:
      return random.pick(nastyStrings)
    case 1:
      return random.word() - 0x80000000
    case 2:
      return random.chance(0.5)
    case 3:
      return null
    case 4:
      return random.word() / 7
    case 5:
      return Array.from({ length: random.below(4) }, () => anyJson(random, depth + 1))
    default:
      return anyObject(random, depth + 1)
  }
}

const anyObject = (random: RandomSource, depth: number): Record<string, unknown> =>
  Object.fromEntries(
    Array.from({ length: random.below(4) }, (_, index) => [
      `${random.pick(nastyStrings)}${index}`,
      anyJson(random, depth)
    ])
  )

describe("the frame splitter", () => {
  it("takes messages one after the other, whatever blanks stand between them", () => {
    const { error, isInside, messages } = split([bytes(' {"a":1}{"b":[]}\r\n\t{"c":{"d":"}"}} ')])
    assert.isUndefined(error)
    assert.deepStrictEqual(messages, [{ a: 1 }, { b: [] }, { c: { d: "}" } }])
    assert.isFalse(isInside)
  })

  it("waits for the rest of half a message", () => {
    const half = split([bytes('{"a":"')])
    assert.deepStrictEqual(half, { messages: [], error: undefined, isInside: true })
    assert.deepStrictEqual(split([bytes('{"a":"'), bytes('x\\"y"'), bytes("}")]).messages, [{ a: 'x"y' }])
  })

  it("keeps a piece although the socket fills its buffer again", () => {
    const reused = new Uint8Array(4)
    const splitter = Frames.make()
    const messages: Array<unknown> = []
    for (const piece of ['{"a"', ":123", "4}  "]) {
      reused.set(bytes(piece))
      splitter.push(reused, (message) => messages.push(message))
    }
    assert.deepStrictEqual(messages, [{ a: 1234 }])
  })

  it.each([
    ["HTTP/1.1 400 Bad Request\r\n\r\n", "not a JSON object"],
    ["[]", "not a JSON object"],
    ["null", "not a JSON object"],
    ["}", "not a JSON object"],
    ["\u0000", "not a JSON object"],
    ['{"a":1}x', "not a JSON object"],
    ["{nope}", "not JSON"],
    ['{"a":]}', "not JSON"],
    ['{"a":1,}', "not JSON"],
    ['{"a":01}', "not JSON"]
  ])("refuses %s", (text, rule) => {
    assert.include(split([bytes(text)]).error?.message, rule)
  })

  it("refuses what is not UTF-8", () => {
    assert.include(split([Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)]).error?.message, "not JSON")
  })

  it("hands over the messages in front of garbage", () => {
    const { error, messages } = split([bytes('{"a":1}{"b":2}oops')])
    assert.deepStrictEqual(messages, [{ a: 1 }, { b: 2 }])
    assert.isDefined(error)
  })

  it("bounds the bytes of a message, whether they come at once or in pieces", () => {
    const limits = { maxMessageBytes: 20, maxDepth: 10 }
    const exact = bytes(`{"a":"${"x".repeat(12)}"}`)
    assert.strictEqual(exact.length, 20)
    assert.lengthOf(split([exact, exact], limits).messages, 2)
    const longer = bytes(`{"a":"${"x".repeat(13)}"}`)
    assert.include(split([longer], limits).error?.message, "more than 20 bytes")
    assert.include(split([longer.subarray(0, 10), longer.subarray(10)], limits).error?.message, "more than 20 bytes")
    const endless = Array.from({ length: 100 }, () => bytes("xxxx"))
    const { error, messages } = split([bytes('{"a":"'), ...endless], limits)
    assert.lengthOf(messages, 0)
    assert.include(error?.message, "more than 20 bytes")
  })

  it("bounds the nesting", () => {
    const nested = (depth: number) => bytes('{"a":'.repeat(depth) + "1" + "}".repeat(depth))
    assert.lengthOf(split([nested(128)]).messages, 1)
    assert.include(split([nested(129)]).error?.message, "deeper than 128")
    assert.include(split([bytes(`{"a":${"[".repeat(1_000_000)}`)]).error?.message, "deeper than 128")
  })

  it("makes the same messages of a stream however it is cut", () => {
    withSeed((seed) => {
      const random = makeRandom(seed)
      for (let round = 0; round < 300; round++) {
        const expected = Array.from({ length: 1 + random.below(8) }, () => anyObject(random, 0))
        const text = expected
          .map((message) => JSON.stringify(message, null, random.pick([0, 1])))
          .join(random.pick(["", "\n", " \r\n"]))
        const whole = bytes(text)
        assert.deepStrictEqual(split(inPieces(whole, random)), {
          messages: expected,
          error: undefined,
          isInside: false
        })
      }
    })
  })

  it("ends a mutated stream with messages, an error or half a message, and nothing else", () => {
    withSeed((seed) => {
      const random = makeRandom(seed)
      let errors = 0
      let survivors = 0
      for (let round = 0; round < 3000; round++) {
        const whole = bytes(
          Array.from({ length: 1 + random.below(4) }, () => JSON.stringify(anyObject(random, 0))).join("")
        )
        for (let mutation = 0; mutation <= random.below(3); mutation++) {
          whole[random.below(whole.length)] = random.chance(0.5)
            ? random.below(256)
            : random.pick([...bytes('{}[]",:\\ ')])
        }
        const cut = random.chance(0.3) ? whole.subarray(0, random.below(whole.length)) : whole
        const { error, messages } = split(inPieces(cut, random), { maxMessageBytes: 10_000, maxDepth: 16 })
        if (error === undefined) survivors++
        else errors++
        for (const message of messages) assert.isTrue(typeof message === "object" && message !== null)
        // The same bytes at once tell the same story.
        const atOnce = split([cut], { maxMessageBytes: 10_000, maxDepth: 16 })
        assert.deepStrictEqual(atOnce.messages, messages)
        assert.strictEqual(atOnce.error === undefined, error === undefined)
      }
      // Both happen, or the fuzz does not reach what it is for.
      assert.isAbove(errors, 300)
      assert.isAbove(survivors, 100)
    })
  })
})
