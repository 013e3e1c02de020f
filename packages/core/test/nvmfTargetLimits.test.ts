/** What a host asks of the embedded target at its limits: lengths that lie, durability, and goodbyes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as net from "node:net"
import { crc32c, getU32, setU32 } from "../src/internal/nvme/wire/bytes.ts"
import { Sqe, writeSgl } from "../src/internal/nvme/wire/command.ts"
import {
  Cc,
  encodeConnect,
  encodeConnectData,
  encodePropertyGet,
  encodePropertySet,
  Property
} from "../src/internal/nvme/wire/fabrics.ts"
import {
  capsuleCmdBytes,
  digestBytes,
  encodeIcReq,
  PduFormat,
  PduType,
  writeCapsuleCmd
} from "../src/internal/nvme/wire/pdu.ts"
import { Status } from "../src/internal/nvme/wire/nvmeStatus.ts"
import {
  capsule,
  command,
  connected,
  dial,
  freePort,
  h2cData,
  hostNqn,
  initialized,
  makeTarget,
  nqn,
  until,
  withQueue
} from "./support/rawNvmeHost.ts"

const block = new Uint8Array(512).fill(0xab)

const withDigest = new PduFormat({ headerDigest: false, dataDigest: true, alignment: 0 })

/** A capsule on a connection with data digests; `error` is what is added to the right one. */
const digested = (sqe: Uint8Array, data: Uint8Array, error = 0): Uint8Array => {
  const bytes = new Uint8Array(capsuleCmdBytes + data.length + digestBytes)
  bytes.set(sqe, 8)
  bytes.set(data, writeCapsuleCmd(bytes, 0, withDigest, data.length))
  setU32(bytes, bytes.length - digestBytes, crc32c(data, 0, data.length) + error)
  return bytes
}

/** Get Log Page, of the health log unless it says so, with room for as much. */
const getLogPage = (commandId: number, lengthBytes: number, logPage = 0x02): Uint8Array => {
  const dwords = lengthBytes / 4 - 1
  const sqe = command({ opcode: 0x02, commandId, nsid: 0xffff_ffff, lengthBytes })
  setU32(sqe, Sqe.cdw10, logPage + (dwords % 0x1_0000) * 0x1_0000)
  setU32(sqe, Sqe.cdw11, Math.floor(dwords / 0x1_0000))
  setU32(sqe, Sqe.cdw12, 0)
  return sqe
}

describe("the embedded target at its limits", () => {
  for (const [what, queueId] of [
    ["the admin queue", 0],
    ["an I/O queue", 1]
  ] as const) {
    it.effect(`the head of ${what} is one of the entries that the host has asked for`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const { admin, io } = yield* withQueue(port, { queueSize: 31 })
          const heads: Array<number> = []
          for (let commandId = 0; commandId < 80; commandId++) {
            const queue = queueId === 0 ? admin : io
            const keepAlive = command({ opcode: 0x18, commandId, nsid: 0, lengthBytes: 0 })
            queue.send(capsule(queueId === 0 ? keepAlive : command({ opcode: 0, commandId, lengthBytes: 0 })))
            heads.push((yield* queue.response).sqHead)
          }
          assert.strictEqual(Math.max(...heads), 31)
          assert.strictEqual(Math.min(...heads), 0)
          for (const [at, head] of heads.entries())
            if (at > 0) assert.strictEqual(head, ((heads[at - 1] ?? 0) + 1) % 32)
        })
      )
    )
  }

  for (const [what, name, offset] of [
    ["a host's name of 224 bytes", { hostNqn: "h".repeat(224) }, 512],
    ["a host's name that is no UTF-8", { hostNqn: "host", broken: 512 }, 512],
    ["a subsystem's name of 224 bytes", { subsystemNqn: "s".repeat(224) }, 256]
  ] as const) {
    it.effect(`${what} is refused`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const host = yield* initialized(port)
          const sqe = encodeConnect({ recordFormat: 0, queueId: 0, queueSize: 31, attributes: 0, keepAliveMillis: 0 })
          writeSgl(sqe, 0, 0x01, 1024)
          const hostId = new Uint8Array(16).fill(7)
          const data = encodeConnectData({ hostId, controllerId: 0xffff, subsystemNqn: nqn, hostNqn })
          if ("hostNqn" in name) data.set(Buffer.from(name.hostNqn), 512)
          if ("subsystemNqn" in name) data.set(Buffer.from(name.subsystemNqn), 256)
          if ("broken" in name) data.set([0xff], name.broken)
          host.send(capsule(sqe, data))
          const answer = yield* host.response
          assert.deepInclude(answer, { status: Status.ConnectInvalidParameters, dword0: 0x1_0000 + offset })
        })
      )
    )
  }

  it.effect("a host's name of 223 bytes is let in", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const host = yield* initialized(port)
        const sqe = encodeConnect({ recordFormat: 0, queueId: 0, queueSize: 31, attributes: 0, keepAliveMillis: 0 })
        writeSgl(sqe, 0, 0x01, 1024)
        const names = { subsystemNqn: nqn, hostNqn: "h".repeat(223) }
        host.send(capsule(sqe, encodeConnectData({ hostId: new Uint8Array(16), controllerId: 0xffff, ...names })))
        assert.strictEqual((yield* host.response).status, 0)
      })
    )
  )

  for (const lengthBytes of [131_076, 2 ** 30, 0xffff_fffc]) {
    it.effect(`a log page of ${lengthBytes} bytes is more than one command may carry`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget()
          const { admin } = yield* withQueue(port)
          admin.send(capsule(getLogPage(1, lengthBytes)))
          assert.deepInclude(yield* admin.response, { commandId: 1, status: Status.DataSglLengthInvalid })
          admin.send(capsule(getLogPage(2, 131_072)))
          assert.deepInclude(yield* admin.next, { type: PduType.C2hData, commandId: 2, lengthBytes: 131_072 })
          assert.deepInclude(yield* admin.response, { commandId: 2, status: 0 })
        })
      )
    )
  }

  it.effect("in-capsule data that is no multiple of 16 bytes: identify tells what fits", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget({ transport: { in_capsule_data_size: 4100 } })
        const { admin } = yield* withQueue(port)
        admin.send(capsule(command({ opcode: 0x06, commandId: 1, nsid: 0, lengthBytes: 4096, dword10: 1 })))
        assert.deepInclude(yield* admin.next, { type: PduType.C2hData, commandId: 1, lengthBytes: 4096 })
        assert.deepInclude(yield* admin.response, { commandId: 1, status: 0 })
      })
    )
  )

  it.effect("tells how soon it is ready for media, which CAP lets Linux ask", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { host } = yield* connected(port)
        const ask = (offset: number, isLong: boolean) =>
          Effect.gen(function* () {
            host.send(capsule(encodePropertyGet(offset, isLong)))
            return yield* host.response
          })
        const cap = yield* ask(Property.Cap, true)
        assert.deepInclude(yield* ask(Property.Crto, false), { status: 0, dword0: cap.dword0 >>> 24 })
        assert.strictEqual((yield* ask(Property.Crto, true)).status, Status.ConnectInvalidParameters)
        assert.strictEqual((yield* ask(0x6c, false)).status, Status.ConnectInvalidParameters)
      })
    )
  )

  for (const [name, bdev, most] of [
    ["can deallocate", undefined, 2_097_152],
    ["cannot deallocate", ["Null0", "bdev_null_create", { name: "Null0", num_blocks: 64, block_size: 512 }], 0]
  ] as const) {
    it.effect(`a namespace that ${name}: at most ${most} blocks at once`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { port } = yield* makeTarget(bdev === undefined ? {} : { bdev })
          const { admin } = yield* withQueue(port)
          // CNS 6: what the controller says of the NVM command set.
          admin.send(capsule(command({ opcode: 0x06, commandId: 1, nsid: 0, lengthBytes: 4096, dword10: 6 })))
          const said = yield* admin.next
          assert.strictEqual(said === undefined ? undefined : getU32(said.data, 4), most)
        })
      )
    )
  }

  it.effect("a host that is refused may come again: the target may not have heard of it yet", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const subsystemNqn = "nqn.2024-01.io.x:later"
        const knock = Effect.gen(function* () {
          const host = yield* initialized(port)
          const sqe = encodeConnect({ recordFormat: 0, queueId: 0, queueSize: 31, attributes: 0, keepAliveMillis: 0 })
          writeSgl(sqe, 0, 0x01, 1024)
          const fields = { hostId: new Uint8Array(16).fill(7), controllerId: 0xffff, subsystemNqn, hostNqn }
          host.send(capsule(sqe, encodeConnectData(fields)))
          return yield* host.response
        })
        assert.deepInclude(yield* knock, { status: Status.ConnectInvalidParameters, isFinal: false })
        yield* rpc.call("nvmf_create_subsystem", { nqn: subsystemNqn })
        const listen_address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(port) }
        yield* rpc.call("nvmf_subsystem_add_listener", { nqn: subsystemNqn, listen_address })
        assert.deepInclude(yield* knock, { status: Status.ConnectInvalidHost, isFinal: false })
        yield* rpc.call("nvmf_subsystem_add_host", { nqn: subsystemNqn, host: hostNqn })
        assert.deepInclude(yield* knock, { status: 0 })
      })
    )
  )

  it.effect("a write with FUA, and write zeroes with it, ends when a flush has", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget({ bdev: ["EE_M0", "bdev_error_create", { base_name: "M0" }] })
        const { io } = yield* withQueue(port)
        const send = (opcode: number, commandId: number, dword12: number) =>
          Effect.gen(function* () {
            const sqe = command({ opcode, commandId, lengthBytes: opcode === 0x01 ? 512 : 0 })
            setU32(sqe, Sqe.cdw12, dword12)
            io.send(capsule(sqe))
            if (opcode === 0x01) {
              const asked = yield* io.next
              assert.deepInclude(asked, { type: PduType.R2t, commandId })
              io.send(h2cData({ commandId, transferTag: asked?.transferTag ?? -1 }, block))
            }
            return (yield* io.response).status
          })
        const fua = 0x4000_0000
        const failing = { name: "EE_M0", io_type: "flush", error_type: "failure", num: 2 }
        yield* rpc.call("bdev_error_inject_error", failing)
        for (const opcode of [0x01, 0x08]) assert.strictEqual(yield* send(opcode, 1, 0), 0)
        // A flush that fails is the end of the write.
        for (const opcode of [0x01, 0x08]) assert.notStrictEqual(yield* send(opcode, 2, fua), 0)
        for (const opcode of [0x01, 0x08]) assert.strictEqual(yield* send(opcode, 3, fua), 0)
      })
    )
  )

  it.effect("a host that disconnects a queue and stays on the line is hung up on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const { io } = yield* withQueue(port)
        io.socket.allowHalfOpen = true
        const queues = (count: number) =>
          until(`${count} queues`, () =>
            Effect.map(
              rpc.call("nvmf_subsystem_get_qpairs", { nqn }),
              (list) => Array.isArray(list) && list.length === count
            )
          )
        yield* queues(2)
        const disconnect = command({ opcode: 0x7f, commandId: 1, nsid: 0x08, lengthBytes: 0 })
        io.send(capsule(disconnect), capsule(command({ opcode: 0x02, commandId: 2 })))
        assert.deepInclude(yield* io.response, { commandId: 1, status: 0 })
        yield* queues(1)
      })
    )
  )

  it.effect("a wrong data digest of a command with another's id is no answer to that other one", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* makeTarget()
        const { controllerId } = yield* withQueue(port)
        const io = yield* dial(port)
        io.send(encodeIcReq({ version: 0, alignment: 0, headerDigest: false, dataDigest: true, maxR2t: 1 }))
        assert.strictEqual((yield* io.next)?.type, PduType.IcResp)
        const connect = encodeConnect({
          recordFormat: 0,
          queueId: 2,
          queueSize: 31,
          attributes: 0,
          keepAliveMillis: 0
        })
        writeSgl(connect, 0, 0x01, 1024)
        const hostId = new Uint8Array(16).fill(7)
        io.send(digested(connect, encodeConnectData({ hostId, controllerId, subsystemNqn: nqn, hostNqn })))
        assert.strictEqual((yield* io.response).status, 0)
        io.send(capsule(command({ opcode: 0x01, commandId: 3 })))
        assert.strictEqual((yield* io.next)?.type, PduType.R2t)
        const rival = command({ opcode: 0x01, commandId: 3 })
        writeSgl(rival, 0, 0x01, 512)
        for (let n = 0; n < 3; n++) {
          io.send(digested(rival, block, 1))
          assert.deepInclude(yield* io.response, { commandId: 3, status: Status.CommandIdConflict })
        }
        writeSgl(rival, 0, 0x01, 512)
        rival[Sqe.commandId] = 4
        io.send(digested(rival, block, 1))
        assert.deepInclude(yield* io.response, { commandId: 4, status: Status.TransientTransportError })
      })
    )
  )

  it.effect("two calls for one address at a time: both listen, or both fail", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const names = ["nqn.2024-01.io.x:s2", "nqn.2024-01.io.x:s3"]
        for (const one of names) yield* rpc.call("nvmf_create_subsystem", { nqn: one, allow_any_host: true })
        const listen = (trsvcid: number) =>
          Effect.forEach(
            names,
            (one) =>
              Effect.exit(
                rpc.call("nvmf_subsystem_add_listener", {
                  nqn: one,
                  listen_address: { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: String(trsvcid) }
                })
              ),
            { concurrency: "unbounded" }
          )
        const taken = yield* Effect.acquireRelease(
          Effect.callback<net.Server>((resume) => {
            const server = net.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => void server.close())
        )
        const { port: takenPort } = taken.address() as net.AddressInfo // that of TCP
        for (const exit of yield* listen(takenPort)) assert.strictEqual(exit._tag, "Failure")
        const free = yield* freePort
        for (const exit of yield* listen(free)) assert.strictEqual(exit._tag, "Success")
        for (const one of names) assert.isFalse((yield* connected(free, { subsystemNqn: one })).host.isEnded)
        assert.isFalse((yield* connected(port)).host.isEnded)
      })
    )
  )

  it.effect("a subsystem of more namespaces than there can be is refused", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { rpc } = yield* makeTarget()
        const create = (max_namespaces: number) =>
          rpc.call("nvmf_create_subsystem", { nqn: "nqn.2024-01.io.x:many", max_namespaces })
        assert.strictEqual((yield* Effect.flip(create(0xffff_ffff))).reason._tag, "RpcFailed")
        yield* create(0xffff)
      })
    )
  )

  it.effect("a referral whose address does not fit the discovery log is refused", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, rpc } = yield* makeTarget()
        const refer = (address: object) =>
          rpc.call("nvmf_discovery_add_referral", { address: { trtype: "TCP", adrfam: "IPv4", ...address } })
        for (const address of [
          { traddr: "ä".repeat(200), trsvcid: "4420" },
          { traddr: "192.0.2.1", trsvcid: "ä".repeat(20) },
          { adrfam: "IB", traddr: "192.0.2.1", trsvcid: "4420" }
        ]) {
          assert.strictEqual((yield* Effect.flip(refer(address))).reason._tag, "InvalidArgument")
        }
        yield* refer({ traddr: "192.0.2.1", trsvcid: "4420" })
        const { host } = yield* connected(port, { subsystemNqn: "nqn.2014-08.org.nvmexpress.discovery" })
        host.send(capsule(encodePropertySet(Property.Cc, BigInt(Cc.enable | Cc.entrySizes), false)))
        assert.strictEqual((yield* host.response).status, 0)
        host.send(capsule(getLogPage(1, 4096, 0x70)))
        assert.deepInclude(yield* host.next, { type: PduType.C2hData, commandId: 1, lengthBytes: 4096 })
        assert.deepInclude(yield* host.response, { commandId: 1, status: 0 })
      })
    )
  )
})
