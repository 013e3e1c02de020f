/**
 * Why a target said no. SPDK answers "Invalid parameters" or "Internal error" to whatever it was, so that after a refusal
 * somebody has to look what is in the way.
 */
import { callDecoded } from "@effect-spdk/core/Engine"
import { type KeyInfo, keyName, list as listKeys } from "@effect-spdk/core/Keyring"
import * as Rpc from "@effect-spdk/core/Rpc"
import {
  AlreadyExists,
  Busy,
  invalid,
  NoSpace,
  NotFound,
  PermissionDenied,
  type Reason,
  type RpcReason,
  SpdkError
} from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as net from "node:net"
import * as Info from "../NvmfInfo.ts"
import type { HostOptions } from "../NvmfOptions.ts"
import { addressKey, type AddressParams, showAddress, type SubsystemTraits } from "./checks.ts"
import { listTransports } from "./transports.ts"

export type Failed = SpdkError<RpcReason>
type Client = Rpc.RpcClient["Service"]

const subsystems = Schema.Array(Info.SubsystemInfo)

export const listSubsystems = (rpc: Client): Effect.Effect<ReadonlyArray<Info.SubsystemInfo>, Failed> =>
  callDecoded(rpc, subsystems, "nvmf_get_subsystems")

export const findSubsystem = (rpc: Client, nqn: string): Effect.Effect<Info.SubsystemInfo, Failed> =>
  Effect.flatMap(listSubsystems(rpc), (all) => {
    const found = all.find((one) => one.nqn === nqn)
    return found === undefined
      ? Effect.fail(new SpdkError({ reason: new NotFound({ operation: "nvmf_get_subsystems", resource: nqn }) }))
      : Effect.succeed(found)
  })

/** These say nothing, or not all: a bdev that is claimed may be exported already. What cannot be found out stays as SPDK has said it. */
const saysNothing = ({ _tag }: Reason): boolean => _tag === "Busy" || _tag === "InvalidArgument" || _tag === "RpcFailed"

const explained = (
  why: (error: Failed) => Effect.Effect<Failed | undefined, Failed>
): (<A>(call: Effect.Effect<A, Failed>) => Effect.Effect<A, Failed>) =>
  Effect.catch((error: Failed) =>
    saysNothing(error.reason)
      ? Effect.flatMap(
          Effect.orElseSucceed(why(error), () => undefined),
          (better) => Effect.fail(better ?? error)
        )
      : Effect.fail(error)
  )

export const explainSubsystem = (rpc: Client, nqn: string) =>
  explained((error) =>
    Effect.map(listSubsystems(rpc), (all) =>
      all.some((one) => one.nqn === nqn)
        ? new SpdkError({ reason: new AlreadyExists({ operation: error.reason.operation, resource: nqn }) })
        : undefined
    )
  )

export interface NamespaceWanted {
  readonly bdev: string
  readonly nsid: number | undefined
  readonly uuid: string
  readonly nguid: string | undefined
  readonly eui64: string | undefined
}

export const explainNamespace = (rpc: Client, traits: SubsystemTraits, wanted: NamespaceWanted) =>
  explained(
    Effect.fnUntraced(function* (error): Effect.fn.Return<Failed | undefined, Failed> {
      const { operation } = error.reason
      const all = yield* listSubsystems(rpc)
      const mine = all.find((one) => one.nqn === traits.nqn)
      if (mine === undefined) return new SpdkError({ reason: new NotFound({ operation, resource: traits.nqn }) })
      const bdev = yield* findBdev(rpc, wanted.bdev)
      if (bdev === undefined) return new SpdkError({ reason: new NotFound({ operation, resource: wanted.bdev }) })
      const same = mine.namespaces.find((one) => one.nsid === wanted.nsid)
      if (same !== undefined) return taken(operation, `${traits.nqn} has a namespace ${same.nsid} already`, wanted.bdev)
      const exported = exportOf(all, bdev.name)
      if (exported !== undefined) return taken(operation, exported, wanted.bdev)
      if (bdev.claimed) {
        const by = rpc.claimOf === undefined ? undefined : yield* rpc.claimOf(bdev.name)
        const detail =
          by ?? `somebody else has claimed it${bdev.claim_type === undefined ? "" : ` (${bdev.claim_type})`}`
        return new SpdkError({
          reason: new Busy({ operation, resource: wanted.bdev, detail, errno: "EPERM", errnoCode: 1 })
        })
      }
      if (mine.namespaces.length >= traits.maxNamespaces) {
        const detail = `${traits.nqn} has its ${traits.maxNamespaces} namespaces`
        return new SpdkError({ reason: new NoSpace({ operation, resource: wanted.bdev, detail }) })
      }
      const named = mine.namespaces.find((one) => sharesName(one, wanted))
      return named === undefined
        ? undefined
        : taken(operation, `namespace ${named.nsid} of ${traits.nqn} has the same identifier`, wanted.bdev)
    })
  )

const taken = (operation: string, detail: string, resource: string): Failed =>
  new SpdkError({ reason: new AlreadyExists({ operation, resource, detail }) })

const exportOf = (all: ReadonlyArray<Info.SubsystemInfo>, bdev: string): string | undefined => {
  for (const { namespaces, nqn } of all) {
    const found = namespaces.find((one) => one.bdev === bdev)
    if (found !== undefined) return `it is namespace ${found.nsid} of ${nqn} already`
  }
  return undefined
}

const sharesName = (one: Info.NamespaceInfo, wanted: NamespaceWanted): boolean =>
  same(one.uuid, wanted.uuid) || same(one.nguid, wanted.nguid) || same(one.eui64, wanted.eui64)

const same = (a: string | undefined, b: string | undefined): boolean =>
  a !== undefined && b !== undefined && a.toLowerCase() === b.toLowerCase()

const findBdev = (rpc: Client, name: string) =>
  Rpc.callWith(rpc, "bdev_get_bdevs", { name }).pipe(
    Effect.map(([bdev]) => bdev),
    Effect.catch((error) => (error.reason._tag === "NotFound" ? Effect.succeed(undefined) : Effect.fail(error)))
  )

export const explainListener = (rpc: Client, nqn: string, address: AddressParams) =>
  explained(
    Effect.fnUntraced(function* (error): Effect.fn.Return<Failed | undefined, Failed> {
      const { operation } = error.reason
      const resource = showAddress(address)
      if (/secure channel.*allow_any_host/.test(error.reason._tag === "RpcFailed" ? error.reason.rpcMessage : "")) {
        const rule = "does not go together with allowAnyHost"
        return invalid("NvmfSubsystem.addListener", "secureChannel", rule, true, resource)
      }
      const transports = yield* listTransports(rpc)
      if (!transports.some((one) => one.trtype === address.trtype)) {
        const detail = `the target has no transport ${address.trtype}`
        return new SpdkError({ reason: new NotFound({ operation, resource, detail }) })
      }
      const all = yield* listSubsystems(rpc)
      const mine = all.find((one) => one.nqn === nqn)
      if (mine === undefined) return new SpdkError({ reason: new NotFound({ operation, resource: nqn }) })
      const listens = (one: Info.SubsystemInfo) => one.listeners.some((at) => addressKey(at) === addressKey(address))
      if (listens(mine)) return taken(operation, `${nqn} is listened for there already`, resource)
      // Subsystems share addresses, so that then the address is not what is wrong.
      return all.some(listens) || !isHere(rpc) ? undefined : yield* tryAddress(operation, address)
    })
  )

/** A target that is reached by a socket of this machine listens on this machine's addresses. */
const isHere = (rpc: Client): boolean => !rpc.address.startsWith("tcp:")

/** What the system says to somebody who listens there for a moment. */
const tryAddress = (operation: string, address: AddressParams): Effect.Effect<Failed | undefined> =>
  address.trtype !== "TCP"
    ? Effect.succeed(undefined)
    : Effect.callback<Failed | undefined>((resume) => {
        const resource = showAddress(address)
        const server = net.createServer()
        server.once("error", (cause: NodeJS.ErrnoException) => {
          const context = { operation, resource, errno: cause.code }
          switch (cause.code) {
            case "EADDRINUSE":
              return resume(
                Effect.succeed(new SpdkError({ reason: new Busy({ ...context, detail: "the address is in use" }) }))
              )
            case "EACCES":
              return resume(Effect.succeed(new SpdkError({ reason: new PermissionDenied(context) })))
            case "EADDRNOTAVAIL":
              return resume(
                Effect.succeed(invalid(operation, "traddr", "is no address of this machine", address.traddr, resource))
              )
            default:
              return resume(Effect.succeed(undefined))
          }
        })
        server.listen({ host: address.traddr, port: Number(address.trsvcid), exclusive: true }, () => {
          server.close(() => resume(Effect.succeed(undefined)))
        })
        return Effect.sync(() => server.close())
      })

export const explainHost = (rpc: Client, nqn: string, options: HostOptions) =>
  explained(
    Effect.fnUntraced(function* (error): Effect.fn.Return<Failed | undefined, Failed> {
      const { operation } = error.reason
      const all = yield* listSubsystems(rpc)
      const mine = all.find((one) => one.nqn === nqn)
      if (mine === undefined) return new SpdkError({ reason: new NotFound({ operation, resource: nqn }) })
      if (mine.hosts.some((one) => one.nqn === options.nqn)) {
        return taken(operation, `${nqn} lets it in already`, options.nqn)
      }
      // An engine without a keyring has no key.
      const keys: ReadonlyArray<KeyInfo> = yield* Effect.provideService(listKeys, Rpc.RpcClient, rpc).pipe(
        Effect.catch((asked) => (asked.reason._tag === "MethodNotFound" ? Effect.succeed([]) : Effect.fail(asked)))
      )
      for (const field of ["psk", "dhchapKey", "dhchapControllerKey"] as const) {
        const key = options[field]
        if (key === undefined || keys.some((one) => one.name === keyName(key))) continue
        const detail = `the keyring has no key of that name, which ${field} asks for`
        return new SpdkError({ reason: new NotFound({ operation, resource: keyName(key), detail }) })
      }
      return undefined
    })
  )
