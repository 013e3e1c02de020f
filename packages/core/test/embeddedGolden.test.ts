import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { makeEngine } from "./support/embeddedEngine.ts"
import { connect } from "./support/rawClient.ts"
import { scratchFolder } from "./support/scratch.ts"

/** What SPDK v26.05 answered to calls in this order, each list to an spdk_tgt of its own. */
type Recorded = readonly [
  method: string,
  params: { readonly [name: string]: unknown } | ReadonlyArray<unknown> | null,
  answer: { readonly result: unknown } | { readonly error: readonly [code: number, message: string] }
]
const lists: ReadonlyArray<ReadonlyArray<Recorded>> = JSON.parse(
  fs.readFileSync(new URL("support/embeddedGolden.json", import.meta.url), "utf8")
)

const randomUuid = /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/g

/** The recording is of bdevs of other modules, and was made without what is saved of this one. */
const isOfNvme = (call: unknown): boolean =>
  typeof call === "object" && call !== null && "method" in call && call.method === "bdev_nvme_set_options"

/** As the recording is: without what is the same in every answer, or the machine's. */
const compact = (value: unknown, key?: string): unknown => {
  if (Array.isArray(value)) return value.filter((one) => !isOfNvme(one)).map((one) => compact(one, key))
  if (typeof value !== "object" || value === null) return value
  if (key === "supported_io_types") return Object.entries(value).flatMap(([name, yes]) => (yes === true ? [name] : []))
  const kept = Object.entries(value).filter(
    ([name, field]) =>
      !["assigned_rate_limits", "ticks", "tick_rate"].includes(name) &&
      !(name === "zoned" && field === false) &&
      !((name.startsWith("preferred_") || name === "optimal_write_size") && field === 0) &&
      // SPDK keeps them in ticks, and may lose a microsecond on the way.
      !name.endsWith("_latency")
  )
  return Object.fromEntries(kept.map(([name, field]) => [name, compact(field, name)]))
}

describe("the embedded engine answers as spdk_tgt did", () => {
  it.live.each([
    [0, "one bdev at a time, and what is wrong with parameters"],
    [1, "bdevs on top of each other"]
  ] as const)("list %d: %s", ([list]) =>
    Effect.gen(function* () {
      const folder = yield* scratchFolder
      fs.writeFileSync(path.join(folder, "f8m.img"), Buffer.alloc(8 * 1024 * 1024))
      fs.writeFileSync(path.join(folder, "odd.img"), Buffer.alloc(1000))
      fs.writeFileSync(path.join(folder, "empty.img"), "")
      const rpcSocket = path.join(folder, "rpc.sock")
      yield* makeEngine({ rpcSocket, memoryMiB: 1024 })
      const client = yield* connect(rpcSocket)
      const calls = lists[list] ?? []
      assert.isAbove(calls.length, 100)
      for (const [index, [method, params, expected]] of calls.entries()) {
        const request = JSON.stringify({ jsonrpc: "2.0", id: index, method, ...(params === null ? {} : { params }) })
        const { error, id, result } = JSON.parse(yield* client.exchange(request.replaceAll("$DIR", folder)))
        assert.strictEqual(id, index)
        const answer = error === undefined ? { result: compact(result) } : { error: [error.code, error.message] }
        const shown = JSON.stringify(answer).replaceAll(randomUuid, "$UUID4").replaceAll(folder, "$DIR")
        assert.deepStrictEqual(JSON.parse(shown), expected, `call ${index}: ${request}`)
      }
    }).pipe(Effect.scoped)
  )
})
