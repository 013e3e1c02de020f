/**
 * The life of a subsystem: who ends what, and in which order.
 */
import { isBdev } from "@effect-spdk/core/Bdev"
import { callDecoded, Host, Outside, pollChanges, withinLimitByRpc } from "@effect-spdk/core/Engine"
import * as Rpc from "@effect-spdk/core/Rpc"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Info from "../NvmfInfo.ts"
import type { NamespaceOptions, SubsystemOptions } from "../NvmfOptions.ts"
import type { ControllerEvent, Namespace, QpairEvent, Subsystem } from "../NvmfSubsystem.ts"
import {
  checkAnaGroup,
  checkNamespace,
  checkNqn,
  checkSubsystem,
  defaultMaxNamespaces,
  type SubsystemTraits
} from "./checks.ts"
import { type Hold, makeAccess, removeListener, unlessGone } from "./access.ts"
import { explainNamespace, explainSubsystem, type Failed, findSubsystem } from "./refusals.ts"

type Client = Rpc.RpcClient["Service"]

const everySecond = Schedule.spaced("1 second")
const drainPoll: Duration.Input = "20 millis"
const deletePoll: Duration.Input = "50 millis"

export const makeSubsystem = Effect.fn("NvmfTarget.subsystem")(function* (
  rpc: Client,
  drainTimeout: Duration.Input,
  options: SubsystemOptions
): Effect.fn.Return<Subsystem, Failed, Scope.Scope> {
  yield* checkSubsystem(options)
  const traits: SubsystemTraits = {
    nqn: options.nqn,
    maxNamespaces: options.maxNamespaces ?? defaultMaxNamespaces,
    anaReporting: options.anaReporting ?? false
  }
  const own = yield* Effect.scope
  const teardown = yield* Effect.cached(
    withinLimitByRpc("NvmfTarget.deleteSubsystem", traits.nqn, tearDown(rpc, traits.nqn, drainTimeout))
  )
  yield* Effect.acquireRelease(create(rpc, options), () => teardown)
  // Scopes end things in the order opposite to their beginnings, but a listener has to go before any namespace. So the first
  // end of anything in the subsystem's own scope, which is closing then, ends all of it.
  const hold: Hold = (acquire, release) =>
    Effect.flatMap(Effect.scope, (scope) =>
      Effect.acquireRelease(acquire, (made) => (scope === own ? teardown : release(made)))
    )
  return handle(rpc, traits, hold)
})

const create = (rpc: Client, options: SubsystemOptions): Effect.Effect<unknown, Failed> =>
  explainSubsystem(
    rpc,
    options.nqn
  )(
    Rpc.callWith(rpc, "nvmf_create_subsystem", {
      nqn: options.nqn,
      serial_number: options.serialNumber,
      model_number: options.modelNumber,
      max_namespaces: options.maxNamespaces ?? defaultMaxNamespaces,
      allow_any_host: options.allowAnyHost ?? false,
      ana_reporting: options.anaReporting,
      min_cntlid: options.minCntlid,
      max_cntlid: options.maxCntlid,
      dmrsl: options.maxDeallocateBlocks,
      wzsl: options.writeZeroesSizeLimit,
      passthrough: options.passthrough,
      enable_nssr: options.enableSubsystemReset
    })
  )

const handle = (rpc: Client, traits: SubsystemTraits, hold: Hold): Subsystem => {
  const { nqn } = traits
  // Without it SPDK says "Invalid parameters" for a subsystem that is gone.
  const there = findSubsystem(rpc, nqn)
  const controllers = Effect.andThen(there, listControllers(rpc, nqn))
  const qpairs = Effect.andThen(
    there,
    callDecoded(rpc, Schema.Array(Info.QpairInfo), "nvmf_subsystem_get_qpairs", { nqn })
  )
  return {
    ...makeAccess(rpc, traits, hold),
    addNamespace: (options) => addNamespace(rpc, traits, hold, options),
    controllers,
    qpairs,
    controllerEvents: (schedule = everySecond) =>
      pollChanges(
        {
          look: controllers,
          keyOf: (one: Info.ControllerInfo) => `${one.cntlid} ${one.hostNqn}`,
          found: (controller): ControllerEvent => ({ _tag: "Connected", controller }),
          lost: (controller): ControllerEvent => ({ _tag: "Disconnected", controller })
        },
        schedule
      ),
    qpairEvents: (schedule = everySecond) =>
      pollChanges(
        {
          look: qpairs,
          keyOf: (one: Info.QpairInfo) => `${one.cntlid} ${one.qid} ${one.hostNqn} ${one.peerAddress?.trsvcid ?? ""}`,
          found: (qpair): QpairEvent => ({ _tag: "QpairConnected", qpair }),
          lost: (qpair): QpairEvent => ({ _tag: "QpairDisconnected", qpair })
        },
        schedule
      )
  }
}

const listControllers = (rpc: Client, nqn: string) =>
  callDecoded(rpc, Schema.Array(Info.ControllerInfo), "nvmf_subsystem_get_controllers", { nqn })

const addNamespace = Effect.fn("NvmfSubsystem.addNamespace")(function* (
  rpc: Client,
  traits: SubsystemTraits,
  hold: Hold,
  options: NamespaceOptions
): Effect.fn.Return<Namespace, Failed, Scope.Scope> {
  yield* checkNamespace(options, traits)
  const host = yield* Host
  const { eui64, nsid: wantedNsid, uuid = host.uuid(), visibleTo } = options
  // SPDK takes the bdev's UUID for an NGUID that is not given, and its initiator names a bdev after the NGUID.
  const nguid = options.nguid ?? uuid.replaceAll("-", "")
  const { nqn } = traits
  const bdev = isBdev(options.bdev) ? options.bdev.name : options.bdev
  const wanted = { bdev, nsid: wantedNsid, uuid, nguid, eui64 }
  const add = Effect.gen(function* () {
    const call = Rpc.callWith(rpc, "nvmf_subsystem_add_ns", {
      nqn,
      namespace: {
        bdev_name: bdev,
        nsid: wantedNsid,
        uuid,
        nguid,
        eui64,
        anagrpid: options.anaGroup,
        ptpl_file: options.persistReservationsIn,
        no_auto_visible: visibleTo !== undefined
      }
    })
    const nsid = yield* Effect.flatMap(explainNamespace(rpc, traits, wanted)(call), nsidOf)
    yield* Effect.forEach(visibleTo ?? [], (host) => Rpc.callWith(rpc, "nvmf_ns_add_host", { nqn, nsid, host }), {
      discard: true
    }).pipe(Effect.onError(() => removeNamespace(rpc, nqn, nsid)))
    return nsid
  })
  const nsid = yield* hold(add, (made) =>
    withinLimitByRpc("NvmfSubsystem.removeNamespace", `${nqn} ${made}`, removeNamespace(rpc, nqn, made))
  )
  return {
    nsid,
    bdev,
    uuid,
    setAnaGroup: (group) =>
      Effect.andThen(
        checkAnaGroup("Namespace.setAnaGroup", group, traits),
        Rpc.callWith(rpc, "nvmf_subsystem_set_ns_ana_group", { nqn, nsid, anagrpid: group })
      ),
    showTo: (host) =>
      Effect.andThen(
        checkNqn("Namespace.showTo", "hostNqn", host),
        Effect.asVoid(
          Effect.acquireRelease(Rpc.callWith(rpc, "nvmf_ns_add_host", { nqn, nsid, host }), () =>
            withinLimitByRpc(
              "Namespace.hideFrom",
              host,
              // Nothing tells who sees a namespace: with the namespace gone, or its host, there is nothing to hide.
              Effect.ignore(Rpc.callWith(rpc, "nvmf_ns_remove_host", { nqn, nsid, host }))
            )
          )
        )
      )
  }
})

/** SPDK answers the id. */
const nsidOf = (result: unknown): Effect.Effect<number> =>
  typeof result === "number"
    ? Effect.succeed(result)
    : Effect.die(new Error(`nvmf_subsystem_add_ns answered ${result}`))

const removeNamespace = (rpc: Client, nqn: string, nsid: number): Effect.Effect<void> =>
  unlessGone(rpc, nqn, Rpc.callWith(rpc, "nvmf_subsystem_remove_ns", { nqn, nsid }), ({ namespaces }) =>
    namespaces.some((one) => one.nsid === nsid)
  )

/** Nobody new comes in, those who are there leave, and only then what they used goes. */
const tearDown = Effect.fnUntraced(function* (rpc: Client, nqn: string, drainTimeout: Duration.Input) {
  const now = yield* look(rpc, nqn)
  if (now === undefined) return
  yield* Effect.forEach(now.listeners, (address) => removeListener(rpc, nqn, address), { discard: true })
  yield* Outside.timeoutOption(empty(rpc, nqn), drainTimeout)
  const left = yield* look(rpc, nqn)
  yield* Effect.forEach(left?.namespaces ?? [], ({ nsid }) => removeNamespace(rpc, nqn, nsid), { discard: true })
  yield* deleteSubsystem(rpc, nqn)
})

const look = (rpc: Client, nqn: string): Effect.Effect<Info.SubsystemInfo | undefined> =>
  Effect.catch(findSubsystem(rpc, nqn), (error) =>
    error.reason._tag === "NotFound" ? Effect.succeed(undefined) : Effect.die(error)
  )

/** Waits until no host is connected. Who cannot be asked for them has none. */
const empty = (rpc: Client, nqn: string): Effect.Effect<void> =>
  Outside.scheduled(
    Effect.orElseSucceed(listControllers(rpc, nqn), () => []).pipe(
      Effect.repeat({ until: (controllers) => controllers.length === 0, schedule: Schedule.spaced(drainPoll) }),
      Effect.asVoid
    )
  )

/** Another change of state may be under way; its end is waited for, as long as the release may take. */
const deleteSubsystem = (rpc: Client, nqn: string): Effect.Effect<void> =>
  unlessGone(
    rpc,
    nqn,
    Outside.scheduled(
      Effect.retry(Rpc.callWith(rpc, "nvmf_delete_subsystem", { nqn }), {
        while: (error) => error.reason._tag === "Busy",
        schedule: Schedule.spaced(deletePoll)
      })
    ),
    () => true
  )
