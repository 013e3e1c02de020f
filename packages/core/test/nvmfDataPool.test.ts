/** How much memory hosts can make the embedded target hold, and who gets it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import { DataPool, type DataWaiter } from "../src/internal/embedded/nvmf/dataPool.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import * as Timers from "../src/internal/embedded/runtime/timers.ts"
import { AdminOpcode, IoOpcode } from "../src/internal/nvme/wire/command.ts"
import { PduType } from "../src/internal/nvme/wire/pdu.ts"
import { Status } from "../src/internal/nvme/wire/nvmeStatus.ts"
import {
  capsule,
  command,
  connected,
  h2cData,
  makeTarget,
  type RawHost,
  type Said,
  until,
  withQueue
} from "./support/rawNvmeHost.ts"

const blocks = 256
const bytes = blocks * 512
/** What fits into the bound of 64 MiB. */
const mostTransfers = 512

const write = (commandId: number, firstBlock = 0) =>
  capsule(command({ opcode: IoOpcode.Write, commandId, firstBlock, blocks }))

/** What has been said so far, PDU by PDU. */
const listen = (host: RawHost) =>
  Effect.gen(function* () {
    const said: Array<Said> = []
    const loop: Effect.Effect<void> = Effect.flatMap(host.next, (pdu) => {
      if (pdu === undefined) return Effect.void
      said.push(pdu)
      return loop
    })
    yield* Effect.forkScoped(loop, { startImmediately: true })
    return said
  })

const transfersOf = (said: ReadonlyArray<Said>) => said.filter(({ type }) => type === PduType.R2t)
const responsesOf = (said: ReadonlyArray<Said>) => said.filter(({ type }) => type === PduType.CapsuleResp)

/** Five queues of one controller, each with as many writes as it may have, none of them with data. */
const manyWrites = Effect.gen(function* () {
  const { port } = yield* makeTarget()
  const { admin, controllerId, io } = yield* withQueue(port, { queueSize: 127 })
  const queues = [io]
  for (let queueId = 2; queueId <= 5; queueId++) {
    queues.push((yield* connected(port, { queueId, queueSize: 127, controllerId })).host)
  }
  const said: Array<Array<Said>> = []
  for (const queue of queues) {
    said.push(yield* listen(queue))
    for (let id = 0; id < 127; id++) queue.send(write(id))
  }
  const transfers = () => said.flatMap((one) => transfersOf(one))
  yield* until("the transfers that fit", () => transfers().length >= mostTransfers)
  // An answer of the admin queue comes behind all that the target has read before.
  admin.send(capsule(command({ opcode: AdminOpcode.KeepAlive, commandId: 1, nsid: 0, lengthBytes: 0 })))
  yield* admin.response
  return { admin, port, queues, said, transfers }
})

describe("the memory of the embedded target", () => {
  it.live("has a bound: hosts are asked for no more data than fits, and for the rest when some of it is done", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { queues, said, transfers } = yield* manyWrites
        assert.lengthOf(transfers(), mostTransfers)
        const total = 5 * 127
        const answered = new Set<Said>()
        const data = new Uint8Array(bytes).fill(0x5a)
        while (answered.size < total) {
          for (const [at, queue] of queues.entries()) {
            for (const one of transfersOf(said[at] ?? [])) {
              if (answered.has(one)) continue
              answered.add(one)
              queue.send(h2cData({ commandId: one.commandId, transferTag: one.transferTag }, data))
            }
          }
          yield* until("more transfers", () => transfers().length > answered.size || answered.size === total)
        }
        yield* until("all responses", () => said.flatMap((one) => responsesOf(one)).length === total)
        assert.isTrue(said.flatMap((one) => responsesOf(one)).every(({ status }) => status === 0))
      })
    )
  )

  it.live("is free again when those who held it hang up, and who waited goes on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { queues, said } = yield* manyWrites
        const last = said.at(-1) ?? []
        const before = transfersOf(last).length
        assert.isBelow(before, 127)
        queues[0]?.socket.destroy()
        yield* until("the last one's transfers", () => transfersOf(last).length === 127)
      })
    )
  )

  it.live("a command that waits for memory can be aborted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { admin, said } = yield* manyWrites
        const last = said.at(-1) ?? []
        const waiting = 126
        assert.isFalse(transfersOf(last).some(({ commandId }) => commandId === waiting))
        const dword10 = 5 + waiting * 0x1_0000
        admin.send(capsule(command({ opcode: AdminOpcode.Abort, commandId: 2, nsid: 0, lengthBytes: 0, dword10 })))
        assert.deepInclude(yield* admin.response, { commandId: 2, status: 0, dword0: 0 })
        yield* until("its response", () => responsesOf(last).length === 1)
        assert.deepInclude(responsesOf(last)[0], { commandId: waiting, status: Status.AbortedByRequest })
      })
    )
  )

  it.effect("who holds it and sends nothing loses its connection when others wait", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { queues, said } = yield* manyWrites
        const last = said.at(-1) ?? []
        const ended = () => queues.filter(({ isEnded }) => isEnded).length
        // Whoever has a transfer by then has had it for two looks.
        for (let look = 0; look < 2; look++) yield* TestClock.adjust("5 seconds")
        assert.strictEqual(ended(), 0)
        yield* TestClock.adjust("5 seconds")
        yield* until("their ends", () => ended() >= 4)
        assert.isBelow(transfersOf(last).length, 128)
      })
    )
  )

  it.live("reads of bdevs that take their time are within the bound too, and all of them are answered", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const delay = { avg_read_latency: 1000, p99_read_latency: 1000, avg_write_latency: 1, p99_write_latency: 1 }
        const params = { base_bdev_name: "M0", name: "D0", ...delay }
        const { port } = yield* makeTarget({ bdev: ["D0", "bdev_delay_create", params] })
        const { controllerId, io } = yield* withQueue(port, { queueSize: 127 })
        const queues = [io]
        for (let queueId = 2; queueId <= 5; queueId++) {
          queues.push((yield* connected(port, { queueId, queueSize: 127, controllerId })).host)
        }
        const said: Array<Array<Said>> = []
        const data = new Set<number>()
        for (const queue of queues) {
          said.push(yield* listen(queue))
          for (let id = 0; id < 127; id++)
            queue.send(capsule(command({ opcode: IoOpcode.Read, commandId: id, blocks })))
        }
        yield* until("all data", () => said.flat().filter(({ type }) => type === PduType.C2hData).length === 5 * 127)
        for (const one of said.flat()) data.add(one.lengthBytes)
        assert.deepStrictEqual([...data], [bytes])
      })
    )
  )

  const makePool = (limitBytes: number) =>
    Effect.map(Timers.make, (timers) => {
      const pool = new DataPool(new EmbeddedReactor(), timers, limitBytes)
      const granted: Array<number> = []
      const waiter = (neededBytes: number): DataWaiter => ({
        neededBytes,
        granted: (memory) => {
          granted.push(neededBytes)
          pool.give(memory)
        }
      })
      return { granted, pool, waiter }
    })

  it.live("goes to who came first, also when a smaller one would fit, and a single one may be above the bound", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { granted, pool, waiter } = yield* makePool(65_536)
        const first = pool.take(65_536)
        assert.isDefined(first)
        pool.wait(waiter(262_144))
        pool.wait(waiter(4096))
        const gone = waiter(8192)
        pool.wait(gone)
        assert.isUndefined(pool.take(1))
        pool.cancel(gone)
        if (first !== undefined) pool.give(first)
        yield* until("both", () => granted.length === 2)
        assert.deepStrictEqual(granted, [262_144, 4096])
        assert.strictEqual(pool.takenBytes, 0)
        assert.strictEqual(pool.waitingCount, 0)
        pool.close()
      })
    )
  )

  it.live("is not held up by one who is gone", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { granted, pool, waiter } = yield* makePool(65_536)
        const held = pool.take(32_768)
        const large = waiter(65_536)
        pool.wait(large)
        pool.wait(waiter(4096))
        pool.cancel(large)
        yield* until("the small one", () => granted.length === 1)
        assert.strictEqual(pool.takenBytes, 32_768)
        assert.isDefined(held)
        pool.close()
      })
    )
  )
})
