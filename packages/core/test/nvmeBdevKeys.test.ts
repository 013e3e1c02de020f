/** The interchange formats of keys, and what comes and goes between two looks. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { keyTextRule, randomDhchap, randomPsk } from "../src/internal/nvmeBdev/keys.ts"
import { pollChanges } from "../src/internal/rpc/pollChanges.ts"

/** From SPDK's own tests of TLS and of authentication. */
const known = [
  "NVMeTLSkey-1:01:MDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmZwJEiQ:",
  "NVMeTLSkey-1:02:MDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmYwMDExMjIzMzQ0NTU2Njc3wWXNJw==:"
]

describe("keys", () => {
  it("takes keys that other programs have made", () => {
    for (const text of known) assert.strictEqual(keyTextRule(text), undefined, text)
  })

  it("takes what it makes, and each is another one", () => {
    const made = [
      randomPsk("sha256"),
      randomPsk("sha384"),
      randomDhchap("none"),
      randomDhchap("sha256"),
      randomDhchap("sha384"),
      randomDhchap("sha512")
    ]
    for (const text of made) assert.strictEqual(keyTextRule(text), undefined)
    assert.strictEqual(new Set([...made, randomPsk("sha256")]).size, made.length + 1)
  })

  it("names the rule that a text breaks, and never quotes the text", () => {
    const good = known[0] ?? ""
    const bad: ReadonlyArray<readonly [string, RegExp]> = [
      ["", /form/],
      ["NVMeTLSkey-2:01:AAAA:", /form/],
      [good.slice(0, -1), /form/],
      [good.replace(":01:", ":03:"), /hash/],
      [good.replace(":01:", ":02:"), /32 bytes/],
      [good.replace("MDAx", "MDAy"), /checksum/],
      ["DHHC-1:04:AAAA:", /hash/],
      ["DHHC-1:01:AAAAAAAA:", /bytes/],
      ["DHHC-1:01:AAAAA:", /base64/]
    ]
    for (const [text, expected] of bad) {
      const rule = keyTextRule(text)
      assert.match(rule ?? "", expected)
      if (text.length > 20) assert.notInclude(rule, text.slice(16, 36))
    }
  })
})

describe("pollChanges", () => {
  it.live("begins with all there is, and tells of losses before what is found", () =>
    Effect.gen(function* () {
      const looks = [["a1", "b1"], ["a1", "b2", "c1"], ["d1"]]
      let at = 0
      const changes = yield* pollChanges(
        {
          look: Effect.sync(() => looks[at++] ?? []),
          keyOf: (one: string) => one.slice(0, 1),
          found: (one) => `found ${one}`,
          lost: (one) => `lost ${one}`,
          changed: (before, now) => (before === now ? undefined : `${before} is ${now}`)
        },
        Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 3 }))
      ).pipe(Stream.runCollect)
      assert.deepStrictEqual(changes, [
        "found a1",
        "found b1",
        "b1 is b2",
        "found c1",
        "lost a1",
        "lost b2",
        "lost c1",
        "found d1",
        "lost d1"
      ])
    })
  )

  it.live("ends with the failure of a look", () =>
    Effect.gen(function* () {
      const failing = pollChanges(
        {
          look: Effect.fail("gone"),
          keyOf: (one: string) => one,
          found: (one) => one,
          lost: (one) => one
        },
        Schedule.spaced("1 millis")
      )
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(failing)), "gone")
    })
  )
})
