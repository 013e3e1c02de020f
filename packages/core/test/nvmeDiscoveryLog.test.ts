/** The reader of the discovery log against controllers that change it meanwhile, or lie; and work that is asked for too often. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { machineHost } from "../src/internal/engine/host.ts"
import { coalesced } from "../src/internal/embedded/nvme/coalesced.ts"
import { readDiscoveryLog } from "../src/internal/nvme/discoveryLog.ts"
import { encodeDiscoveryLog, maxDiscoveryEntries } from "../src/internal/nvme/wire/logPages.ts"

const entry = (subnqn: string) => ({ trtype: 3, adrfam: 1, subtype: 2, trsvcid: "4420", traddr: "192.0.2.1", subnqn })
const names = (count: number) => Array.from({ length: count }, (_, i) => `nqn.2024-01.io.x:s${i}`)

const read = (pageAt: (reads: number) => Uint8Array, maxReadBytes = 4096) => {
  const asked: Array<readonly [number, number]> = []
  const run = readDiscoveryLog<never>({
    operation: "test",
    resource: "here",
    maxReadBytes,
    read: (offsetBytes, lengthBytes) =>
      Effect.sync(() => {
        const page = pageAt(asked.length)
        asked.push([offsetBytes, lengthBytes])
        const bytes = new Uint8Array(lengthBytes)
        bytes.set(page.subarray(offsetBytes, offsetBytes + lengthBytes))
        return bytes
      })
  })
  return { asked, run }
}

describe("the reader of the discovery log", () => {
  it.effect("reads entries in pieces, and all of them", () =>
    Effect.gen(function* () {
      const page = encodeDiscoveryLog(7n, names(9).map(entry))
      const { asked, run } = read(() => page)
      assert.deepStrictEqual(
        (yield* run).map((one) => one.subnqn),
        names(9)
      )
      assert.deepStrictEqual(asked, [
        [0, 1024],
        [1024, 4096],
        [5120, 4096],
        [9216, 1024],
        [0, 1024]
      ])
    })
  )

  it.effect("begins again when the log has changed in between", () =>
    Effect.gen(function* () {
      const before = encodeDiscoveryLog(1n, names(2).map(entry))
      const after = encodeDiscoveryLog(2n, names(3).map(entry))
      const { run } = read((reads) => (reads < 2 ? before : after))
      assert.strictEqual((yield* run).length, 3)
    })
  )

  it.effect("a log that never stands still is Busy", () =>
    Effect.gen(function* () {
      const { run } = read((reads) => encodeDiscoveryLog(BigInt(reads), []))
      assert.strictEqual((yield* Effect.flip(run)).reason._tag, "Busy")
    })
  )

  it.effect("a log of more entries than there can be is Corrupted, and none is read", () =>
    Effect.gen(function* () {
      const page = encodeDiscoveryLog(1n, [])
      new DataView(page.buffer).setBigUint64(8, BigInt(maxDiscoveryEntries) + 1n, true)
      const { asked, run } = read(() => page)
      assert.strictEqual((yield* Effect.flip(run)).reason._tag, "Corrupted")
      assert.strictEqual(asked.length, 1)
    })
  )
})

describe("coalesced", () => {
  it.effect("what is asked for during a run is one run more, also after a run that died", () =>
    Effect.gen(function* () {
      const gates = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      let runs = 0
      const ask = coalesced(
        () => machineHost,
        Effect.suspend(() => {
          const gate = gates[runs++]
          return gate === undefined ? Effect.die(new Error("the third run")) : Deferred.await(gate)
        })
      )
      for (let i = 0; i < 1000; i++) ask()
      assert.strictEqual(runs, 1)
      for (const gate of gates) {
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      }
      assert.strictEqual(runs, 2)
      ask()
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.strictEqual(runs, 3)
      ask()
      assert.strictEqual(runs, 4)
    })
  )

  it.effect("who asks while a fiber pauses between the end of a run and its own is heard", () =>
    Effect.gen(function* () {
      const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      // A fiber pauses after every 2,048 steps, wherever it is: for some of these numbers, right there.
      for (let steps = 4040; steps < 4120; steps++) {
        let asked = 0
        let heard = 0
        const ask = coalesced(
          () => machineHost,
          Effect.suspend(() => {
            heard = asked
            return Effect.forEach(Array.from({ length: steps }), () => Effect.void, { discard: true })
          })
        )
        for (asked = 1; asked <= 4; asked++) {
          ask()
          yield* turn
        }
        asked--
        yield* turn
        yield* turn
        assert.strictEqual(heard, asked, `${steps} steps`)
      }
    })
  )
})
