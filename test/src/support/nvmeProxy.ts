/**
 * A man in the middle of NVMe/TCP: passes on what host and target say, PDU by PDU, and decides of each command what becomes of it.
 */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { encodeTermReq, PduType, sequenceFault } from "./internals.ts"

/** A command as it goes by. */
export interface PassingCommand {
  /** 0 is the admin queue. */
  readonly queueId: number
  readonly opcode: number
  readonly dword10: number
}

/**
 * - `pass`: to the target, and its answer to the host.
 * - `hold`: to the target, but only by `release`.
 * - `swallow`: nobody gets it.
 * - `half`: the next PDU of the target is cut in its middle, and nothing follows.
 * - `terminate`: the host gets a termination request for an answer, and nothing follows; the connection stays.
 * - `terminateBare`: the same, without the quoted header that the specification wants in it.
 */
export type Verdict = "pass" | "hold" | "swallow" | "half" | "terminate" | "terminateBare"

export interface NvmeProxy {
  readonly port: number
  /** Called for each command, also of connections that come later. */
  decide: (command: PassingCommand) => Verdict
  /** What is held goes on. */
  readonly release: Effect.Effect<void>
}

const sqeAt = 8
const fabrics = { opcode: 0x7f, connect: 1, typeAt: sqeAt + 4, queueIdAt: sqeAt + 42 } as const

/** Cuts a stream into PDUs. */
const pdus = (each: (pdu: Buffer) => void): ((bytes: Buffer) => void) => {
  let rest = Buffer.alloc(0)
  return (bytes) => {
    rest = Buffer.concat([rest, bytes])
    while (rest.length >= 8) {
      const length = rest.readUInt32LE(4)
      assert.isAtLeast(length, 8)
      if (rest.length < length) return
      const pdu = rest.subarray(0, length)
      rest = rest.subarray(length)
      each(pdu)
    }
  }
}

const terminationOf = (quoted: Buffer): Uint8Array => {
  const fault = sequenceFault("said by the proxy")
  fault.header = quoted
  return encodeTermReq(PduType.C2hTermReq, fault)
}

/** Between the target on this port and whoever connects; gone with the scope. */
export const makeProxy = (targetPort: number): Effect.Effect<NvmeProxy, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<net.Socket>()
    let held: Array<() => void> = []
    let decide: NvmeProxy["decide"] = () => "pass"

    const relay = (host: net.Socket): void => {
      const target = net.connect(targetPort, "127.0.0.1")
      let queueId = 0
      let answers: "whole" | "half" | "none" = "whole"
      for (const [socket, other] of [
        [host, target],
        [target, host]
      ] as const) {
        sockets.add(socket)
        socket.setNoDelay(true)
        socket.on("error", () => {})
        socket.on("close", () => {
          sockets.delete(socket)
          other.destroy()
        })
      }
      const terminate = (quoted: Buffer) => {
        answers = "none"
        host.write(terminationOf(quoted))
      }
      host.on(
        "data",
        pdus((pdu) => {
          if (pdu[0] !== PduType.CapsuleCmd) return void target.write(pdu)
          const opcode = pdu[sqeAt] ?? 0
          if (opcode === fabrics.opcode && pdu[fabrics.typeAt] === fabrics.connect) {
            queueId = pdu.readUInt16LE(fabrics.queueIdAt)
          }
          switch (decide({ queueId, opcode, dword10: pdu.readUInt32LE(sqeAt + 40) })) {
            case "swallow":
              return
            case "terminate":
              return terminate(pdu.subarray(0, 72))
            case "terminateBare":
              return terminate(Buffer.alloc(0))
            case "hold":
              return void held.push(() => target.write(pdu))
            case "half":
              answers = "half"
          }
          target.write(pdu)
        })
      )
      target.on(
        "data",
        pdus((pdu) => {
          if (answers === "whole") host.write(pdu)
          if (answers !== "half") return
          answers = "none"
          host.write(pdu.subarray(0, pdu.length / 2))
        })
      )
    }

    const server = yield* Effect.acquireRelease(
      Effect.callback<net.Server>((resume) => {
        const listening = net.createServer(relay)
        listening.listen(0, "127.0.0.1", () => resume(Effect.succeed(listening)))
      }),
      (listening) =>
        Effect.callback<void>((resume) => {
          listening.close(() => resume(Effect.void))
          for (const socket of sockets) socket.destroy()
        })
    )
    const address = server.address()
    return {
      port: typeof address === "object" && address !== null ? address.port : 0,
      get decide() {
        return decide
      },
      set decide(next) {
        decide = next
      },
      release: Effect.sync(() => {
        const due = held
        held = []
        for (const pass of due) pass()
      })
    }
  })
