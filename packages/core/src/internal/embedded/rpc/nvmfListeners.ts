/**
 * The RPC methods of the NVMe-oF target about its listeners and about who is connected.
 */
import * as Net from "node:net"
import * as Effect from "effect/Effect"
import type { NvmfListenAddress } from "../../../generated/RpcTypes.ts"
import type { AnaState } from "../../nvme/wire/logPages.ts"
import { formatUuid } from "../../nvme/wire/identify.ts"
import type { Json } from "../bdev/bdev.ts"
import { ticksPerSecond } from "../bdev/ioStat.ts"
import { type Address, addressKey, type Subsystem, type Target } from "../nvmf/target.ts"
import { answerTrue, internal, invalid, isTarget, onSubsystem } from "./nvmfAnswers.ts"
import { dumpAddress } from "./nvmfDumps.ts"
import { type MethodAnswer, type RpcFault, type RpcTable, invalidParams } from "./table.ts"

const addressOf = (given: NvmfListenAddress): Address | undefined => {
  const { traddr, trsvcid = "", trtype } = given
  const adrfam = given.adrfam === undefined ? "ipv4" : given.adrfam.toLowerCase()
  const port = Number(trsvcid)
  if (trtype.toUpperCase() !== "TCP" || !/^\d+$/.test(trsvcid) || port < 1 || port > 65_535) return undefined
  if (adrfam === "ipv4" && Net.isIPv4(traddr)) return { adrfam: "IPv4", traddr, trsvcid }
  return adrfam === "ipv6" && Net.isIPv6(traddr) ? { adrfam: "IPv6", traddr, trsvcid } : undefined
}

const anaStates: { readonly [name: string]: AnaState } = {
  optimized: "optimized",
  non_optimized: "nonOptimized",
  inaccessible: "inaccessible"
}
const anaNameOf = (state: AnaState): string =>
  Object.entries(anaStates).find(([, value]) => value === state)?.[0] ?? state

export const addNvmfListeners = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_subsystem_add_listener",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const address = addressOf(params.listen_address)
        if (params.secure_channel === true) {
          return Effect.fail(
            subsystem.allowAnyHost
              ? internal("Cannot establish secure channel, when 'allow_any_host' is set")
              : invalidParams("secure_channel: the embedded engine's target has no TLS")
          )
        }
        if (params.sock_impl !== undefined || params.numa_id !== undefined) return Effect.fail(invalid)
        const anaState = anaStates[params.ana_state ?? "optimized"]
        if (address === undefined || anaState === undefined || target.transport === undefined)
          return Effect.fail(invalid)
        return addListener(target, subsystem, address, anaState)
      }),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_remove_listener",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const address = addressOf(params.listen_address)
        const listener = address === undefined ? undefined : subsystem.listenerAt(address)
        if (listener === undefined) return Effect.fail(invalid)
        subsystem.listeners.splice(subsystem.listeners.indexOf(listener), 1)
        for (const controller of [...subsystem.controllers.values()]) {
          if (addressKey(controller.admin.address) === addressKey(listener.address)) controller.destroy()
        }
        target.stopListening(listener.address)
        target.discoveryChanged()
        return answerTrue
      }),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_listener_set_ana_state",
    (params) => {
      if (!isTarget(target, params.tgt_name)) return Effect.fail(internal("Unable to find a target."))
      const subsystem = target.subsystems.get(params.nqn)
      if (subsystem === undefined) return Effect.fail(invalidParams(`Unable to find subsystem with NQN ${params.nqn}`))
      const address = addressOf(params.listen_address)
      return address === undefined
        ? Effect.fail(invalid)
        : setAnaState(subsystem, address, params.ana_state, params.anagrpid ?? 0)
    },
    { onInvalid }
  )
  addQueries(table, target)
}

const addListener = (target: Target, subsystem: Subsystem, address: Address, anaState: AnaState): MethodAnswer =>
  Effect.callback((resume) => {
    if (subsystem.listenerAt(address) !== undefined) return resume(Effect.fail(invalid))
    const socket = target.listenSocket(address)
    socket.users++
    socket.whenListening((error) => {
      // Meanwhile the subsystem may have gone, or got this listener by another call.
      const isWanted = target.subsystems.get(subsystem.nqn) === subsystem && subsystem.listenerAt(address) === undefined
      if (error === undefined && isWanted) {
        subsystem.addListener(address, anaState)
        target.discoveryChanged()
        return resume(answerTrue)
      }
      if (error !== undefined) {
        target.registry.context.log("error", `nvmf: ${address.traddr} port ${address.trsvcid}: ${error.message}`)
      }
      target.stopListening(address)
      resume(Effect.fail(invalid))
    })
  })

const setAnaState = (subsystem: Subsystem, address: Address, name: string, group: number): MethodAnswer => {
  const fail = (code: number): Effect.Effect<never, RpcFault> =>
    Effect.fail(internal(`error setting ANA state: ${code}`))
  const { anaReporting, maxNamespaces } = subsystem.options
  if (!anaReporting) return fail(-22)
  const state = anaStates[name]
  if (state === undefined) return fail(-95)
  const listener = subsystem.listenerAt(address)
  if (group > maxNamespaces || listener === undefined) return fail(-22)
  if (group !== 0 && listener.anaStates[group - 1] === state) return answerTrue
  if (group === 0) listener.anaStates.fill(state)
  else listener.anaStates[group - 1] = state
  listener.anaChangeCount++
  for (const controller of subsystem.controllers.values()) {
    if (controller.listener === listener) controller.anaChanged()
  }
  return answerTrue
}

const addQueries = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_subsystem_get_listeners",
    (params) =>
      onSubsystem(target, params, (subsystem) =>
        Effect.succeed(
          subsystem.listeners.map(({ address, anaStates: states }) => ({
            address: dumpAddress(address),
            ...(subsystem.options.anaReporting
              ? { ana_states: states.map((state, i) => ({ ana_group: i + 1, ana_state: anaNameOf(state) })) }
              : {})
          }))
        )
      ),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_get_controllers",
    (params) =>
      onSubsystem(target, params, (subsystem) =>
        Effect.succeed(
          [...subsystem.controllers.values()].map((controller) => ({
            cntlid: controller.id,
            cntrltype: subsystem.options.isDiscovery ? "discovery" : "io",
            hostnqn: controller.hostNqn,
            hostid: formatUuid(controller.hostId),
            // SPDK counts the admin queue too.
            num_io_qpairs: controller.ioQueues.size + 1
          }))
        )
      ),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_get_qpairs",
    (params) => onSubsystem(target, params, (subsystem) => Effect.succeed(queuePairs(target, subsystem))),
    { onInvalid }
  )
  table.add(
    "nvmf_get_stats",
    (params) =>
      isTarget(target, params.tgt_name)
        ? Effect.succeed(statistics(target))
        : Effect.fail(internal("Unable to find a target.")),
    { isOptional: true, onInvalid }
  )
}

const queuePairs = (target: Target, subsystem: Subsystem): Json =>
  [...target.connections].flatMap(({ address, controller, peer, queueId }) =>
    controller === undefined || controller.subsystem !== subsystem
      ? []
      : [
          {
            cntlid: controller.id,
            qid: queueId,
            state: "enabled",
            thread: target.thread.name,
            hostnqn: controller.hostNqn,
            listen_address: dumpAddress(address),
            peer_address: dumpAddress(peer)
          }
        ]
  )

const statistics = (target: Target): Json => {
  const queues = [...target.connections]
  const { adminQueues, completed, ioQueues } = target.stats
  return {
    tick_rate: ticksPerSecond,
    poll_groups: [
      {
        name: target.thread.name,
        admin_qpairs: adminQueues,
        io_qpairs: ioQueues,
        current_admin_qpairs: queues.filter(({ queueId }) => queueId === 0).length,
        current_io_qpairs: queues.filter(({ queueId }) => queueId > 0).length,
        current_unassociated_qpairs: queues.filter(({ queueId }) => queueId < 0).length,
        pending_bdev_io: 0,
        completed_nvme_io: completed,
        transports: target.transport === undefined ? [] : [{ trtype: "TCP" }]
      }
    ]
  }
}
