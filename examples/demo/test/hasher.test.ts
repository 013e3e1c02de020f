/** The hashes of the demo, with the thread that takes its part of them, and with threads that fail. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { createHash } from "node:crypto"
import { describe, expect, it } from "vitest"
import { DemoError } from "../src/DemoError.ts"
import { Hasher, layerOf } from "../src/Hasher.ts"

const compiled = new URL("../../dist/demo/src/hashWorker.js", import.meta.url)
const threadOf = (source: string): URL => new URL(`data:text/javascript,${encodeURIComponent(source)}`)

const MiB = 2 ** 20
const contentOf = (lengthBytes: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: lengthBytes }, (_, index) => (index * 31 + seed + (index >> 12)) & 0xff)

/** In steps of this, with a step of less at the end. */
const hashOf = (content: Uint8Array, stepBytes: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const hash = yield* (yield* Hasher).sha256(content.length)
      for (let at = 0; at < content.length; at += stepBytes) {
        const step = content.slice(at, at + stepBytes)
        yield* hash.update(step)
        // What update has taken is the caller's again.
        step.fill(0)
      }
      return yield* hash.digest
    })
  )

const expected = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex")

/** Two large files: the first is for the thread. */
const twoLarge = Effect.gen(function* () {
  const hasher = yield* Hasher
  const first = yield* hasher.sha256(9 * MiB)
  const second = yield* hasher.sha256(9 * MiB)
  return { first, second }
})

const content = contentOf(9 * MiB + 17, 3)

describe("the hasher", () => {
  it("hashes many files at once, small and large, each in its order", async () => {
    const sizes = [0, 1, 4096, MiB - 1, MiB, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 9 * MiB + 17, 8 * MiB + 4095, 11 * MiB]
    const contents = sizes.map((size, index) => contentOf(size, index))
    const program = Effect.forEach(contents, (one, index) => hashOf(one, MiB / 2 + index * 99_991), {
      concurrency: "unbounded"
    })
    const hashes = await Effect.runPromise(Effect.provide(program, layerOf(compiled)))
    expect(hashes).toEqual(contents.map(expected))
  }, 30_000)

  it("takes an update that is longer than all of its memory", async () => {
    const long = contentOf(19 * MiB, 5)
    const hash = await Effect.runPromise(Effect.provide(hashOf(long, long.length), layerOf(compiled)))
    expect(hash).toBe(expected(long))
  }, 30_000)

  it("forgets a hash that its scope leaves, and goes on with others", async () => {
    const program = Effect.gen(function* () {
      const hasher = yield* Hasher
      yield* Effect.scoped(Effect.flatMap(hasher.sha256(content.length), (hash) => hash.update(content)))
      return yield* hashOf(content, MiB)
    })
    expect(await Effect.runPromise(Effect.provide(program, layerOf(compiled)))).toBe(expected(content))
  }, 30_000)

  const endings = {
    "throws before it takes anything": `throw new Error("no such thread")`,
    "ends while it hashes": `import { parentPort } from "node:worker_threads"; parentPort.once("message", () => process.exit(3))`
  }
  for (const [what, source] of Object.entries(endings)) {
    it(`fails, and waits for nothing, when the thread ${what}`, async () => {
      const program = Effect.scoped(
        Effect.gen(function* () {
          const { first, second } = yield* twoLarge
          const updated = Effect.andThen(first.update(content), first.digest)
          const error = yield* Effect.flip(updated)
          // What is hashed on this side does not need the thread.
          yield* second.update(content)
          return { error, again: yield* Effect.flip(first.digest), second: yield* second.digest }
        })
      )
      const { again, error, second } = await Effect.runPromise(Effect.provide(program, layerOf(threadOf(source))))
      expect(error).toBeInstanceOf(DemoError)
      expect(error.message).toMatch(/^the thread that hashes has ended: (no such thread|exit code 3)$/)
      expect(again).toBe(error)
      expect(second).toBe(expected(content))
    }, 30_000)
  }

  it("holds whoever is faster than the thread", async () => {
    const deaf = threadOf(`import { parentPort } from "node:worker_threads"; parentPort.on("message", () => {})`)
    const program = Effect.scoped(
      Effect.gen(function* () {
        const { first } = yield* twoLarge
        let updates = 0
        const all = Effect.forever(
          Effect.andThen(
            first.update(content.subarray(0, MiB)),
            Effect.sync(() => updates++)
          )
        )
        const running = yield* Effect.forkChild(all)
        while (updates < 8) yield* Effect.sleep("1 millis")
        // The ninth would have come by now.
        yield* Effect.sleep("200 millis")
        yield* Fiber.interrupt(running)
        return updates
      })
    )
    expect(await Effect.runPromise(Effect.provide(program, layerOf(deaf)))).toBe(8)
  }, 30_000)
})
