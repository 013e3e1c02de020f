/** The embedded NVMe-oF target against peers that lie, hang up, and send noise. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import * as net from "node:net"
import { termFatalError } from "../src/internal/nvme/wire/pdu.ts"
import { makeRandom } from "./support/random.ts"
import { makeTarget, nqn, until } from "./support/rawNvmeHost.ts"

const golden: Record<string, string> = JSON.parse(
  readFileSync(new URL("golden/nvmePdus.json", import.meta.url), "utf8")
)
const icReq = Buffer.from(golden["icReq"] ?? "", "hex")
const connect = Buffer.from(golden["connectPlain"] ?? "", "hex")
// The same without digests.
icReq[11] = 0

/** What the target says to this until it hangs up or has said `enoughBytes`. */
const talk = (port: number, bytes: Uint8Array, enoughBytes: number): Effect.Effect<Buffer> =>
  Effect.callback((resume) => {
    const socket = net.connect(port, "127.0.0.1")
    const pieces: Array<Buffer> = []
    let length = 0
    const done = (): void => {
      socket.destroy()
      resume(Effect.succeed(Buffer.concat(pieces)))
    }
    socket.on("data", (piece: Buffer) => {
      pieces.push(piece)
      length += piece.length
      if (length >= enoughBytes) done()
    })
    socket.on("error", done)
    socket.on("close", done)
    socket.write(bytes)
  })

/** Connects the admin queue: 128 bytes and the response. */
const connects = (port: number): Effect.Effect<number> =>
  Effect.map(talk(port, Buffer.concat([icReq, connect]), 152), (said) =>
    said.length === 152 ? said.readUInt16LE(128 + 22) : -1
  )

const changed = (pdu: Buffer, at: number, value: number): Buffer => {
  const copy = Buffer.from(pdu)
  copy[at] = value
  return copy
}

describe("the embedded target", () => {
  it.effect("connects a host that SPDK's tool is", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        assert.strictEqual(yield* connects(port), 0)
        yield* rpc.call("nvmf_subsystem_allow_any_host", { nqn, allow_any_host: false })
        // Connect invalid host; it may be tried again, as with SPDK's target.
        assert.strictEqual(yield* connects(port), 0x0184 << 1)
      })
    )
  )

  const faults: ReadonlyArray<readonly [string, Buffer, number]> = [
    ["a capsule before ICReq", connect, 2],
    ["a second ICReq", Buffer.concat([icReq, icReq]), 2],
    ["an unknown type", Buffer.concat([icReq, changed(connect, 0, 0xff)]), 1],
    ["another PFV", changed(icReq, 8, 1), 6],
    ["a wrong HLEN", Buffer.concat([icReq, changed(connect, 2, 1)]), 1],
    ["data in a capsule beyond the limit", Buffer.concat([icReq, changed(connect, 6, 1)]), 5],
    ["noise behind a connect", Buffer.concat([icReq, connect, noise()]), 1]
  ]
  for (const [name, bytes, fatalError] of faults) {
    it.effect(`${name}: a termination request, and others go on`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const said = yield* talk(port, bytes, 1e6)
          let at = 0
          while (at < said.length && said[at] !== 3) at += said.readUInt32LE(at + 4)
          assert.strictEqual(termFatalError(said, at), fatalError)
          assert.strictEqual(yield* connects(port), 0)
        })
      )
    )
  }

  it.effect("some hundred connections at a time, and none is left behind", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const statuses = yield* Effect.all(
          Array.from({ length: 200 }, () => connects(port)),
          { concurrency: 200 }
        )
        assert.isTrue(statuses.every((status) => status === 0))
        yield* until("their controllers to be gone", () =>
          Effect.map(
            rpc.call("nvmf_subsystem_get_controllers", { nqn }),
            (left) => Array.isArray(left) && left.length === 0
          )
        )
      })
    )
  )

  it.effect("noise", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Date.now() % 2 ** 31)
        const random = makeRandom(seed)
        const rounds = process.env["EFFECT_SPDK_LONG"] === "1" ? 20_000 : 100
        for (let round = 0; round < rounds; round++) {
          const bytes = Buffer.concat([icReq, connect, connect])
          for (let n = random.below(5); n >= 0; n--) bytes[random.below(bytes.length)] = random.below(256)
          // A reader that waits for more bytes is hung up on by the other end of this.
          yield* Effect.raceFirst(
            talk(port, bytes, 176),
            Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
          )
        }
        assert.strictEqual(yield* connects(port), 0, `seed ${seed}`)
      })
    )
  )
})

/** A header that is none. */
function noise(): Buffer {
  return Buffer.alloc(128, 0xee)
}
