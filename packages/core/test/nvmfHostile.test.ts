/** The embedded NVMe-oF target against hosts that mean ill, stop in the middle, or never read. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import { setU32 } from "../src/internal/nvme/wire/bytes.ts"
import { FatalError, PduType } from "../src/internal/nvme/wire/pdu.ts"
import { Status } from "../src/internal/nvme/wire/nvmeStatus.ts"
import {
  capsule,
  command,
  connected,
  dial,
  h2cData,
  icReq,
  initialized,
  makeTarget,
  nqn,
  type RawHost,
  until,
  withQueue
} from "./support/rawNvmeHost.ts"

const isLong = process.env["EFFECT_SPDK_LONG"] === "1"
const block = new Uint8Array(512).fill(0xab)
const read = 0x02
const write = 0x01

type Rpc = Effect.Success<ReturnType<typeof makeTarget>>["rpc"]

const controllers = (rpc: Rpc, count: number) =>
  until(`${count} controllers`, () =>
    Effect.map(
      rpc.call("nvmf_subsystem_get_controllers", { nqn }),
      (list) => Array.isArray(list) && list.length === count
    )
  )

const startWrite = (io: RawHost, commandId: number, blocks = 1) =>
  Effect.gen(function* () {
    io.send(capsule(command({ opcode: write, commandId, blocks })))
    const asked = yield* io.next
    assert.deepInclude(asked, { type: PduType.R2t, commandId, lengthBytes: blocks * 512 })
    return asked?.transferTag ?? -1
  })

/** The target still serves others. */
const servesOthers = (port: number) =>
  Effect.gen(function* () {
    const { io } = yield* withQueue(port)
    const transferTag = yield* startWrite(io, 1)
    io.send(h2cData({ commandId: 1, transferTag }, block))
    assert.deepInclude(yield* io.response, { commandId: 1, status: 0 })
  })

describe("the embedded target and a host that does not keep to the rules", () => {
  it.effect("a command is not aborted between the request for its data and the data", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { admin, io } = yield* withQueue(port)
        const transferTag = yield* startWrite(io, 9, 2)
        // Queue 1, command 9.
        admin.send(capsule(command({ opcode: 0x08, commandId: 5, nsid: 0, lengthBytes: 0, dword10: (9 << 16) | 1 })))
        assert.deepInclude(yield* admin.response, { commandId: 5, status: 0, dword0: 1 })
        io.send(h2cData({ commandId: 9, transferTag, isLast: false }, block))
        io.send(h2cData({ commandId: 9, transferTag, offsetBytes: 512 }, block))
        assert.deepInclude(yield* io.response, { commandId: 9, status: 0 })
        io.send(capsule(command({ opcode: read, commandId: 9, blocks: 2 })))
        assert.deepInclude(yield* io.next, { type: PduType.C2hData, commandId: 9, lengthBytes: 1024 })
      })
    )
  )

  const transfers: ReadonlyArray<readonly [string, number, (transferTag: number) => Uint8Array]> = [
    ["more data than was asked for", 4, (transferTag) => h2cData({ commandId: 9, transferTag }, new Uint8Array(1536))],
    ["data from an offset beyond", 4, (transferTag) => h2cData({ commandId: 9, transferTag, offsetBytes: 512 }, block)],
    ["another transfer tag", 1, (transferTag) => h2cData({ commandId: 9, transferTag: transferTag + 1 }, block)],
    ["a transfer tag that cannot be", 1, () => h2cData({ commandId: 9, transferTag: 0xffff }, block)],
    ["another command's id", 1, (transferTag) => h2cData({ commandId: 8, transferTag }, block)],
    ["an end too early", 1, (transferTag) => h2cData({ commandId: 9, transferTag }, block)],
    ["no end", 1, (transferTag) => h2cData({ commandId: 9, transferTag, isLast: false }, new Uint8Array(1024))],
    ["a PDU beyond MAXH2CDATA", 5, (transferTag) => h2cData({ commandId: 9, transferTag }, new Uint8Array(131_584))],
    ["a length that is not the PDU's", 1, (transferTag) => changedLength(transferTag)],
    ["a PDU of 4 GiB", 1, (transferTag) => withLength(h2cData({ commandId: 9, transferTag }, block), 0xffff_fffc)],
    ["a capsule of 4 GiB", 5, () => withLength(capsule(command({ opcode: write, commandId: 1 }), block), 0xffff_fffc)],
    ["a capsule that ends in its header", 1, () => withLength(capsule(command({ opcode: write, commandId: 1 })), 8)],
    ["a second ICReq", 2, () => icReq]
  ]
  for (const [name, fatalError, bytes] of transfers) {
    it.effect(`${name}: that connection ends with error ${fatalError}, others go on`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const { io } = yield* withQueue(port)
          io.send(bytes(yield* startWrite(io, 9, 2)))
          assert.strictEqual(yield* io.ended, fatalError)
          yield* servesOthers(port)
        })
      )
    )
  }

  it.effect("data twice, and data after the end", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { io } = yield* withQueue(port)
        const transferTag = yield* startWrite(io, 9)
        io.send(h2cData({ commandId: 9, transferTag }, block), h2cData({ commandId: 9, transferTag }, block))
        assert.strictEqual((yield* io.response).status, 0)
        assert.strictEqual(yield* io.ended, 1)
      })
    )
  )

  it.effect("a command id that is in use: that command fails, the other one goes on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { io } = yield* withQueue(port)
        const transferTag = yield* startWrite(io, 3)
        for (let n = 0; n < 100; n++) {
          io.send(capsule(command({ opcode: read, commandId: 3 })))
          assert.deepInclude(yield* io.response, { commandId: 3, status: Status.CommandIdConflict })
        }
        io.send(h2cData({ commandId: 3, transferTag }, block))
        assert.deepInclude(yield* io.response, { commandId: 3, status: 0 })
      })
    )
  )

  it.effect("more commands than the queue has entries end the connection", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { io } = yield* withQueue(port, { queueSize: 3 })
        for (let id = 0; id < 4; id++) yield* startWrite(io, id)
        io.send(capsule(command({ opcode: write, commandId: 4 })))
        assert.strictEqual(yield* io.ended, 2)
        yield* servesOthers(port)
      })
    )
  )

  it.effect("who says nothing, or stops before the connect command, is hung up on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const silent = yield* dial(port)
        const half = yield* dial(port)
        half.send(icReq.subarray(0, 60))
        const early = yield* initialized(port)
        const { host } = yield* connected(port)
        yield* TestClock.adjust("29 seconds")
        for (const one of [silent, half, early]) assert.isFalse(one.isEnded)
        yield* TestClock.adjust("2 seconds")
        for (const one of [silent, half, early]) assert.strictEqual(yield* one.ended, 0)
        assert.isFalse(host.isEnded)
      })
    )
  )

  it.effect("a host that closes its side, or vanishes in the middle of its data, leaves nothing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const polite = yield* withQueue(port)
        const rude = yield* withQueue(port)
        yield* controllers(rpc, 2)
        polite.admin.socket.end()
        yield* polite.io.ended
        const transferTag = yield* startWrite(rude.io, 1, 4)
        rude.io.send(h2cData({ commandId: 1, transferTag, isLast: false }, block).subarray(0, 300))
        rude.admin.socket.resetAndDestroy()
        yield* rude.io.ended
        yield* controllers(rpc, 0)
      })
    )
  )

  it.effect("a controller that is not kept alive goes; without a time limit it stays", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const mortal = yield* withQueue(port, { keepAliveMillis: 20_000 })
        const eternal = yield* withQueue(port)
        for (let n = 0; n < 5; n++) {
          yield* TestClock.adjust("15 seconds")
          mortal.admin.send(capsule(command({ opcode: 0x18, commandId: 1, nsid: 0, lengthBytes: 0 })))
          assert.strictEqual((yield* mortal.admin.response).status, 0)
        }
        // I/O does not count, as this controller says.
        yield* TestClock.adjust("15 seconds")
        mortal.io.send(capsule(command({ opcode: read, commandId: 1 })))
        assert.strictEqual((yield* mortal.io.next)?.type, PduType.C2hData)
        yield* TestClock.adjust("6 seconds")
        yield* mortal.admin.ended
        yield* mortal.io.ended
        yield* TestClock.adjust("1 day")
        eternal.io.send(capsule(command({ opcode: read, commandId: 1 })))
        assert.strictEqual((yield* eternal.io.next)?.type, PduType.C2hData)
        yield* controllers(rpc, 1)
      })
    )
  )

  it.effect(
    "half a PDU is waited for as long as the controller is kept alive, and what is no PDU behind it ends the wait",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const silent = yield* withQueue(port, { keepAliveMillis: 20_000 })
          const claims = capsule(command({ opcode: read, commandId: 1 }), new Uint8Array(16))
          silent.io.send(claims.subarray(0, 40))
          yield* TestClock.adjust("19 seconds")
          assert.isFalse(silent.io.isEnded)
          yield* TestClock.adjust("2 seconds")
          yield* silent.admin.ended
          yield* silent.io.ended
          // Whatever the length that it lies about, and however much of it a whole command behind it fills.
          for (const claimedBytes of [89, 160, 161, 187, 4168]) {
            const { io } = yield* withQueue(port)
            setU32(claims, 4, claimedBytes)
            io.send(claims, capsule(command({ opcode: read, commandId: 2 })))
            io.send(new Uint8Array(192 * 1024))
            assert.strictEqual(yield* io.ended, FatalError.InvalidHeaderField, `${claimedBytes} bytes`)
          }
        })
      )
  )

  const delay: readonly [string, string, object] = [
    "D0",
    "bdev_delay_create",
    {
      name: "D0",
      base_bdev_name: "M0",
      avg_read_latency: 5_000_000,
      p99_read_latency: 5_000_000,
      avg_write_latency: 5_000_000,
      p99_write_latency: 5_000_000
    }
  ]

  it.effect("a bdev that is removed under I/O: every command is answered, the connection stays", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget({ bdev: delay })
        const { io } = yield* withQueue(port)
        for (let id = 0; id < 20; id++) io.send(capsule(command({ opcode: read, commandId: id })))
        // The one that waits for data has not come as far as the bdev.
        const transferTag = yield* startWrite(io, 20)
        const removed = yield* Effect.forkScoped(rpc.call("bdev_delay_delete", { name: "D0" }), {
          startImmediately: true
        })
        const invalidNamespace = Status.InvalidNamespaceOrFormat & 0x7ff
        io.send(h2cData({ commandId: 20, transferTag }, block))
        assert.deepInclude(yield* io.response, { commandId: 20, status: invalidNamespace })
        assert.isUndefined(removed.pollUnsafe())
        // What runs has its time, as with SPDK's delay bdev.
        yield* TestClock.adjust("6 seconds")
        const ids = new Set<number>()
        for (let n = 0; n < 20; n++) ids.add((yield* io.next)?.commandId ?? -1)
        assert.deepStrictEqual(
          [...ids].toSorted((a, b) => a - b),
          Array.from({ length: 20 }, (_, id) => id)
        )
        yield* until("the removal", () => removed.pollUnsafe() !== undefined)
        io.send(capsule(command({ opcode: read, commandId: 1 })))
        assert.deepInclude(yield* io.response, { commandId: 1, status: invalidNamespace })
      })
    )
  )

  it.effect("a host that goes while its I/O runs: the I/O ends, and the subsystem can be deleted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget({ bdev: delay })
        const { admin, io } = yield* withQueue(port)
        for (let id = 0; id < 20; id++) io.send(capsule(command({ opcode: read, commandId: id })))
        yield* startWrite(io, 20)
        admin.socket.resetAndDestroy()
        yield* io.ended
        const deleted = yield* Effect.forkScoped(rpc.call("nvmf_delete_subsystem", { nqn }))
        yield* TestClock.adjust("6 seconds")
        yield* until("the deletion", () => deleted.pollUnsafe() !== undefined)
        assert.strictEqual(yield* rpc.call("bdev_delay_delete", { name: "D0" }), true)
      })
    )
  )

  it.effect("who asks and does not read makes the target wait, not grow", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { io } = yield* withQueue(port, { queueSize: 100 })
        io.socket.pause()
        const before = process.memoryUsage().arrayBuffers
        // 128 MiB of answers, more than the queue has entries for.
        const count = 1024
        const asked = Array.from({ length: count }, (_, commandId) =>
          capsule(command({ opcode: read, commandId, blocks: 256 }))
        )
        io.send(...asked)
        let most = 0
        const watched = performance.now() + 500
        while (performance.now() < watched) {
          most = Math.max(most, process.memoryUsage().arrayBuffers - before)
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        }
        assert.isBelow(most, 40 * 1024 * 1024)
        yield* servesOthers(port)
        io.socket.resume()
        for (let commandId = 0; commandId < count; commandId++) {
          assert.deepInclude(yield* io.next, { type: PduType.C2hData, commandId, lengthBytes: 131_072 })
        }
      })
    )
  )

  it.live(
    `${isLong ? "10,000" : "1,000"} connections at once`,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const count = isLong ? 10_000 : 1000
          const { port, rpc } = yield* makeTarget()
          const before = process.memoryUsage()
          const crowd = yield* Effect.acquireRelease(
            Effect.sync(() => spawn(process.execPath, ["-e", crowdProgram, String(port), String(count)])),
            (child) => Effect.sync(() => void child.kill("SIGKILL"))
          )
          let initializedBy = 0
          crowd.stdout.on("data", (text: Buffer) => {
            initializedBy = Math.max(initializedBy, Number(text.toString().trim().split("\n").at(-1)))
          })
          yield* until(`${count} of ICResp`, () => initializedBy === count)
          yield* servesOthers(port)
          const after = process.memoryUsage()
          assert.isBelow(after.arrayBuffers - before.arrayBuffers, count * 8192)
          crowd.kill("SIGKILL")
          yield* servesOthers(port)
          assert.isArray(yield* rpc.call("nvmf_subsystem_get_controllers", { nqn }))
        })
      ),
    60_000
  )
})

const withLength = (pdu: Uint8Array, lengthBytes: number): Uint8Array => {
  const copy = Buffer.from(pdu)
  copy.writeUInt32LE(lengthBytes, 4)
  return copy
}

/** DATAL says twice what PLEN has. */
const changedLength = (transferTag: number): Uint8Array => {
  const copy = Buffer.from(h2cData({ commandId: 9, transferTag }, block))
  copy.writeUInt32LE(1024, 16)
  return copy
}

/** Connections that say ICReq, stay, and count the answers. In a process of its own, for descriptors are limited by process. */
const crowdProgram = `
const net = require("node:net")
const [port, count] = process.argv.slice(1).map(Number)
const icReq = Buffer.alloc(128)
icReq[2] = 128
icReq[4] = 128
let started = 0, answered = 0
const next = () => {
  if (started === count) return
  started++
  const socket = net.connect(port, "127.0.0.1", () => socket.write(icReq))
  socket.once("data", () => {
    answered++
    if (answered % 100 === 0) console.log(answered)
    next()
  })
  socket.on("error", (error) => { console.error(error.message); process.exit(1) })
}
for (let i = 0; i < 100; i++) next()
`
