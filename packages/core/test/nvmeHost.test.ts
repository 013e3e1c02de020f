/** The embedded NVMe/TCP host against peers that lie, are broken, and send noise. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as net from "node:net"
import * as Nvme from "../src/Nvme.ts"
import * as Spdk from "../src/Spdk.ts"
import { type ConnectionFailure, QueuePair } from "../src/internal/embedded/nvme/queuePair.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import { encodeNamespaceList, identifyController } from "../src/internal/nvme/wire/identify.ts"
import { setU16, setU32, getU16 } from "../src/internal/nvme/wire/bytes.ts"
import { FatalError, PduType, termFatalError, termField } from "../src/internal/nvme/wire/pdu.ts"
import { deadlineIn } from "./support/deadline.ts"

const icResp = (change: (bytes: Uint8Array) => void = () => {}): Uint8Array => {
  const bytes = new Uint8Array(128)
  bytes.set([PduType.IcResp, 0, 128, 0])
  setU32(bytes, 4, 128)
  setU32(bytes, 12, 131_072)
  change(bytes)
  return bytes
}

const short = (type: number, change: (bytes: Uint8Array) => void): Uint8Array => {
  const bytes = new Uint8Array(24)
  bytes.set([type, 0, 24, 0])
  setU32(bytes, 4, 24)
  change(bytes)
  return bytes
}

const response = (commandId: number, dword0 = 0): Uint8Array =>
  short(PduType.CapsuleResp, (bytes) => {
    setU32(bytes, 8, dword0)
    setU16(bytes, 20, commandId)
  })

interface Peer {
  readonly port: number
  /** All that the host has sent on the last connection. */
  readonly received: () => Buffer
  /** All that the host sends has come: it has closed its connections. */
  readonly ended: Effect.Effect<void>
  readonly close: () => void
}

/** Answers ICReq with `first`, and then each command capsule with what `answer` gives for it; a hang-up for undefined. */
const peer = (
  first: Uint8Array | undefined,
  answer: (commandId: number, count: number) => Uint8Array | undefined
): Effect.Effect<Peer> =>
  Effect.callback((resume) => {
    let received = Buffer.alloc(0)
    const sockets = new Set<net.Socket>()
    const server = net.createServer((socket) => {
      received = Buffer.alloc(0)
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      let at = 0
      let count = 0
      socket.on("data", (data) => {
        received = Buffer.concat([received, data])
        while (received.length - at >= 8) {
          const pduBytes = received.readUInt32LE(at + 4)
          if (received.length - at < pduBytes) return
          const type = received[at]
          const bytes =
            type === PduType.IcReq
              ? first
              : type === PduType.CapsuleCmd
                ? answer(getU16(received, at + 10), count++)
                : new Uint8Array(0)
          at += pduBytes
          if (bytes === undefined) socket.destroy()
          else socket.write(bytes)
        }
      })
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      resume(
        Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          received: () => received,
          ended: Effect.gen(function* () {
            const isOver = deadlineIn(10_000)
            while (sockets.size > 0) {
              if (isOver()) assert.fail("the host does not close its connection")
              yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
            }
          }),
          close: () => {
            for (const socket of sockets) socket.destroy()
            server.close()
          }
        })
      )
    })
  })

const connect = (port: number, limitMillis = 30_000) =>
  Effect.scoped(
    Nvme.connect(`trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port} subnqn:nqn.2016-06.io.spdk:cnode1`, {
      connectTimeout: limitMillis,
      adminTimeout: limitMillis
    })
  )

/** The termination request at the end of what the host has sent. */
const termination = (received: Buffer): { readonly fatalError: number; readonly field: number } | undefined => {
  for (let at = 0; at + 24 <= received.length; at += received.readUInt32LE(at + 4)) {
    if (received[at] === PduType.H2cTermReq) {
      return { fatalError: termFatalError(received, at), field: termField(received, at) }
    }
  }
  return undefined
}

const refuses = (
  first: Uint8Array | undefined,
  answer: (commandId: number, count: number) => Uint8Array | undefined,
  expected: { readonly fatalError: number; readonly field: number } | undefined
) =>
  Effect.gen(function* () {
    const liar = yield* peer(first, answer)
    const error = yield* Effect.flip(connect(liar.port))
    assert.strictEqual(error._tag, "SpdkError")
    yield* liar.ended
    assert.deepStrictEqual(termination(liar.received()), expected)
    liar.close()
  }).pipe(Effect.provide(Spdk.layerEmbedded()))

const invalidHeader = (field: number) => ({ fatalError: FatalError.InvalidHeaderField, field })
const never = (): Uint8Array => new Uint8Array(0)

describe("the embedded NVMe host", () => {
  const cases: ReadonlyArray<
    [string, Parameters<typeof refuses>[0], Parameters<typeof refuses>[1], Parameters<typeof refuses>[2]]
  > = [
    ["hang-up", undefined, never, undefined],
    [
      "ICResp of another version",
      icResp((b) => setU16(b, 8, 1)),
      never,
      { fatalError: FatalError.UnsupportedParameter, field: 8 }
    ],
    ["CPDA too large", icResp((b) => (b[10] = 32)), never, invalidHeader(10)],
    ["digests nobody asked for", icResp((b) => (b[11] = 3)), never, invalidHeader(11)],
    ["MAXH2CDATA too small", icResp((b) => setU32(b, 12, 512)), never, invalidHeader(12)],
    ["wrong PLEN of ICResp", icResp((b) => setU32(b, 4, 0xffff_fff0)), never, invalidHeader(4)],
    ["a PDU of the host's", short(PduType.CapsuleCmd, () => {}), never, invalidHeader(0)],
    ["a completion before ICResp", response(0), never, { fatalError: FatalError.SequenceError, field: 0 }],
    ["a completion for nothing", icResp(), (id) => response(id + 1), invalidHeader(20)],
    ["a second ICResp", icResp(), () => icResp(), { fatalError: FatalError.SequenceError, field: 0 }],
    ["data for a command that reads none", icResp(), (id) => dataFor(id, 0, 8), invalidHeader(8)],
    ["R2T for data in the capsule", icResp(), (id) => r2t(id, 0, 8), invalidHeader(8)],
    ["an unknown PDU type", icResp(), () => short(0x0a, () => {}), invalidHeader(0)],
    ["a hang-up after Connect", icResp(), () => undefined, undefined]
  ]
  for (const [name, first, answer, expected] of cases) {
    it.live(`ends the connection: ${name}`, () => refuses(first, answer, expected))
  }

  // The third command is the first one that reads data: CAP, VS and CC come before identify, and CSTS says ready.
  const upToIdentify =
    (lie: (commandId: number) => Uint8Array) =>
    (commandId: number, count: number): Uint8Array =>
      count === 0
        ? response(commandId, 1)
        : count < identifyAt
          ? response(commandId, count === 5 ? 1 : 0)
          : lie(commandId)

  const lies: ReadonlyArray<[string, (id: number) => Uint8Array, { fatalError: number; field: number } | undefined]> = [
    [
      "data beyond what was asked for",
      (id) => dataFor(id, 0, 8192),
      { fatalError: FatalError.DataOutOfRange, field: 0 }
    ],
    ["data that leaves a gap", (id) => dataFor(id, 512, 512), invalidHeader(12)],
    [
      "DATAL that is not PLEN",
      (id) => {
        const b = dataFor(id, 0, 512)
        setU32(b, 16, 256)
        return b
      },
      invalidHeader(16)
    ],
    [
      "SUCCESS without LAST",
      (id) => {
        const b = dataFor(id, 0, 4096)
        b[1] = 8
        return b
      },
      invalidHeader(1)
    ],
    ["R2T for a read", (id) => r2t(id, 0, 4096), invalidHeader(8)],
    ["success without the data", (id) => response(id), undefined]
  ]
  for (const [name, lie, expected] of lies) {
    it.live(`ends the connection: ${name}`, () => refuses(icResp(), upToIdentify(lie), expected))
  }

  for (const [name, answer] of [
    ["Connect", (id: number, count: number) => (count === 0 ? response(id, 1) : never())],
    ["the third command", (id: number, count: number) => (count < 3 ? response(id, count === 0 ? 1 : 0) : never())]
  ] as const) {
    it.live(`gives up in time when the controller falls silent behind ${name}`, () =>
      Effect.gen(function* () {
        const silent = yield* peer(icResp(), answer)
        const { reason } = yield* Effect.flip(connect(silent.port, 2000))
        assert.include(reason, { _tag: "TimedOut", limitMillis: 2000 })
        silent.close()
      }).pipe(Effect.provide(Spdk.layerEmbedded()))
    )
  }

  for (const [name, run] of [
    ["probe", (id: string) => Effect.asVoid(Nvme.probe(id))],
    ["connect", (id: string) => Effect.scoped(Effect.asVoid(Nvme.connect(id)))],
    ["discover", (id: string) => Stream.runDrain(Nvme.discover(id))]
  ] as const) {
    it.live(`${name} of a peer that says nothing ends when it is given up, and hangs up`, () =>
      Effect.gen(function* () {
        const silent = yield* peer(never(), never)
        const started = performance.now()
        const exit = yield* Effect.exit(
          Effect.timeout(run(`trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${silent.port}`), 100)
        )
        assert.strictEqual(exit._tag, "Failure")
        assert.isBelow(performance.now() - started, 5000)
        yield* silent.ended
        silent.close()
      }).pipe(Effect.provide(Spdk.layerEmbedded()))
    )
  }

  it.live("asks for no namespaces above the highest that the controller says it has", () =>
    Effect.gen(function* () {
      let pages = 0
      const withData = (id: number, data: Uint8Array): Uint8Array => {
        const bytes = dataFor(id, 0, data.length)
        bytes.set(data, 24)
        return Buffer.concat([bytes, response(id)])
      }
      const liar = yield* peer(icResp(), (id, count) => {
        if (count < identifyAt) return upToIdentify(never)(id, count)
        if (count === identifyAt) return withData(id, identifyController.encode({ maxNamespaceId: 2000 }))
        if (count < identifyAt + 3) return response(id)
        const first = 1024 * pages++ + 1
        return withData(id, encodeNamespaceList(Array.from({ length: 1024 }, (_, at) => first + at)))
      })
      const { reason } = yield* Effect.flip(connect(liar.port))
      assert.strictEqual(reason._tag, "Corrupted")
      assert.include(reason.message, "2048")
      assert.strictEqual(pages, 2)
      liar.close()
    }).pipe(Effect.provide(Spdk.layerEmbedded()))
  )

  it.live(
    "a queue that is closed while its connection is made tells who waits for it, once, and can be opened again",
    () =>
      Effect.gen(function* () {
        const silent = yield* peer(never(), never)
        const reactor = new EmbeddedReactor()
        const owner = { queueFailed: () => assert.fail("nobody has this connection yet") }
        const queue = new QueuePair({ id: 1, depth: 8, retries: 0, reactor, owner })
        const address = { host: "127.0.0.1", port: silent.port, family: 4, localAddress: "", localPort: 0 } as const
        const told: Array<ConnectionFailure | undefined> = []
        const open = () =>
          queue.open({ address, headerDigest: false, dataDigest: false, inCapsuleBytes: 0 }, (failure) => {
            told.push(failure)
          })
        open()
        queue.close("down")
        open()
        yield* until("the word", () => told.length > 0)
        assert.strictEqual(queue.state, "opening")
        queue.close("failed")
        yield* until("the second word", () => told.length > 1)
        assert.deepStrictEqual(
          told.map((failure) => failure?.message),
          ["the connection was given up while it was made", "the connection was given up while it was made"]
        )
        silent.close()
      })
  )

  // Of whole controllers; nvmeHostPduFuzz.test.ts has the many PDUs.
  const rounds = process.env["EFFECT_SPDK_LONG"] === "1" ? 5000 : 150
  it.live(
    `noise for answers fails and crashes nothing, ${rounds} rounds`,
    () =>
      Effect.gen(function* () {
        const seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Date.now() % 1_000_000)
        console.log(`seed ${seed}`)
        const random = lcg(seed)
        const honest = [icResp(), response(0, 1), dataFor(0, 0, 4096), r2t(0, 0, 64)]
        const mutated = (): Uint8Array => {
          const bytes = (honest[random(honest.length)] ?? icResp()).slice(0)
          for (let i = random(4); i >= 0; i--) bytes[random(Math.min(bytes.length, 32))] = random(256)
          return bytes
        }
        const noisy = yield* peer(icResp(), (id, count) =>
          count > 20 ? undefined : random(3) > 0 ? response(id, 1) : mutated()
        )
        for (let i = 0; i < rounds; i++) {
          const error = yield* Effect.flip(
            Effect.scoped(
              Nvme.connect(
                `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${noisy.port} subnqn:nqn.2016-06.io.spdk:cnode1`,
                {
                  connectTimeout: "50 millis",
                  adminTimeout: "50 millis"
                }
              )
            )
          )
          assert.strictEqual(error._tag, "SpdkError")
        }
        noisy.close()
      }).pipe(Effect.provide(Spdk.layerEmbedded())),
    rounds * 1000
  )
})

const until = (what: string, holds: () => boolean) =>
  Effect.gen(function* () {
    const isOver = deadlineIn(10_000)
    while (!holds()) {
      if (isOver()) assert.fail(`waited too long for ${what}`)
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    }
  })

/** Connect, CAP, VS, CC, set CC, CSTS, identify. */
const identifyAt = 6

const dataFor = (commandId: number, offset: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(24 + length)
  bytes.set([PduType.C2hData, 4, 24, 24])
  setU32(bytes, 4, bytes.length)
  setU16(bytes, 8, commandId)
  setU32(bytes, 12, offset)
  setU32(bytes, 16, length)
  return bytes
}

const r2t = (commandId: number, offset: number, length: number): Uint8Array =>
  short(PduType.R2t, (bytes) => {
    setU16(bytes, 8, commandId)
    setU32(bytes, 12, offset)
    setU32(bytes, 16, length)
  })

const lcg = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state >>> 8) % below
  }
}
