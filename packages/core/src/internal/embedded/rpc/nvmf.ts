/**
 * The RPC methods of the NVMe-oF target, in SPDK's names and words: transports and subsystems. Namespaces are in rpcNvmfNamespaces.ts,
 * hosts and referrals in rpcNvmfHosts.ts, listeners and what is told about connections in rpcNvmfListeners.ts, what is saved in
 * rpcNvmfConfig.ts.
 */
import * as Effect from "effect/Effect"
import type { NvmfCreateSubsystem, NvmfCreateTransport } from "../../../generated/RpcNvmf.ts"
import { nqnRule } from "../../nvme/wire/nqn.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { Subsystem, Target, type TransportOptions } from "../nvmf/target.ts"
import { answerTrue, internal, invalid, isTarget, noTarget, onSubsystem } from "./nvmfAnswers.ts"
import { addNvmfSettings } from "./nvmfConfig.ts"
import { dumpSubsystem, dumpTransport, fixedTransportOptions, inertTransportOptions } from "./nvmfDumps.ts"
import { addHosts, addReferrals } from "./nvmfHosts.ts"
import { addNvmfListeners } from "./nvmfListeners.ts"
import { addNamespaces } from "./nvmfNamespaces.ts"
import { type MethodAnswer, errnoFault, invalidParams, RpcFault, type RpcTable } from "./table.ts"
import { ENODEV } from "../queue/status.ts"

export const addNvmf = (table: RpcTable, registry: BdevRegistry): Target => {
  const target = new Target(registry)
  addNvmfSettings(table, target)
  addTransports(table, target)
  addSubsystems(table, target)
  addNamespaces(table, target)
  addHosts(table, target)
  addReferrals(table, target)
  addNvmfListeners(table, target)
  return target
}

const defaults = {
  max_queue_depth: 128,
  max_io_qpairs_per_ctrlr: 127,
  in_capsule_data_size: 4096,
  max_io_size: 131_072,
  max_aq_depth: 128,
  c2h_success: true,
  kas: 100,
  min_kato: 10_000
} satisfies TransportOptions

const settable: ReadonlySet<string> = new Set(["trtype", "tgt_name", ...Object.keys(defaults)])

const isFixed = (name: string, value: unknown): boolean =>
  Object.hasOwn(fixedTransportOptions, name) &&
  fixedTransportOptions[name as keyof typeof fixedTransportOptions] === value

/** Accepted whatever the value is: sizes of pools, and what other transports have. */
const inert: ReadonlySet<string> = new Set([
  ...Object.keys(inertTransportOptions),
  "io_unit_size",
  "num_shared_buffers",
  "buf_cache_size",
  "num_cqe",
  "max_srq_depth",
  "no_srq",
  "acceptor_backlog",
  "acceptor_poll_rate",
  "no_wr_batching",
  "control_msg_num",
  "disable_mappable_bar0",
  "disable_adaptive_irq",
  "disable_shadow_doorbells"
])

/** Those of the parameters that are accepted without effect. */
const withoutEffect = (params: NvmfCreateTransport): ReadonlyArray<string> =>
  Object.entries(params)
    .filter(([name, value]) => value !== undefined && value !== false && inert.has(name))
    .filter(([name, value]) => inertTransportOptions[name as keyof typeof inertTransportOptions] !== value)
    .map(([name]) => `${name} of nvmf_create_transport`)

const transportOptions = (params: NvmfCreateTransport): TransportOptions | RpcFault => {
  for (const [name, value] of Object.entries(params)) {
    // What is switched off is not asked for; rpc.py sends all switches of all transports.
    if (settable.has(name) || inert.has(name) || value === undefined || value === false) continue
    if (!isFixed(name, value)) {
      return invalidParams(`${name}: the embedded engine's target cannot be set to ${JSON.stringify(value)}`)
    }
  }
  const given = Object.fromEntries(
    Object.entries(params).filter(([name, value]) => name in defaults && value !== undefined)
  )
  const options: TransportOptions = { ...defaults, ...given }
  const { kas, max_io_size: maxIoSize } = options
  const isPowerOfTwo = Number.isInteger(Math.log2(maxIoSize))
  if (!isPowerOfTwo || maxIoSize < 8192 || maxIoSize > 16 * 1024 * 1024 || kas === 0 || options.min_kato === 0) {
    return internal("Failed to create transport.")
  }
  const step = kas * 100
  return {
    ...options,
    min_kato: Math.ceil(options.min_kato / step) * step,
    max_queue_depth: options.max_queue_depth < 2 ? defaults.max_queue_depth : options.max_queue_depth,
    max_aq_depth: options.max_aq_depth > 4096 ? defaults.max_aq_depth : Math.max(32, options.max_aq_depth),
    in_capsule_data_size: Math.min(options.in_capsule_data_size, maxIoSize)
  }
}

const addTransports = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_create_transport",
    (params) => {
      if (!isTarget(target, params.tgt_name)) return Effect.fail(noTarget)
      const name = params.trtype.toUpperCase()
      if (name !== "TCP") return Effect.fail(invalidParams(`Invalid transport type '${params.trtype}'`))
      if (target.transport !== undefined) {
        return Effect.fail(internal(`Transport type '${params.trtype}' already exists`))
      }
      const options = transportOptions(params)
      if (options instanceof RpcFault) return Effect.fail(options)
      target.transport = options
      target.registry.withoutEffect.note(...withoutEffect(params))
      return answerTrue
    },
    { onInvalid }
  )
  table.add(
    "nvmf_get_transports",
    (params) => {
      if (!isTarget(target, params.tgt_name)) return Effect.fail(noTarget)
      const { transport } = target
      const isAsked = params.trtype === undefined || params.trtype.toUpperCase() === "TCP"
      if (params.trtype !== undefined && (!isAsked || transport === undefined)) {
        return Effect.fail(errnoFault(-ENODEV))
      }
      return Effect.succeed(transport === undefined ? [] : [dumpTransport(transport)])
    },
    { isOptional: true, onInvalid }
  )
  table.addBare("nvmf_get_targets", "nvmf_get_targets has no parameters.", () => Effect.succeed([target.name]))
}

const isText = (text: string, maxLength: number): boolean => /^[\x20-\x7e]*$/.test(text) && text.length <= maxLength

/** More than this is a mistake, and memory: there is an ANA state for each, in every listener. */
const maxNamespaces = 0xffff

const createSubsystem = (target: Target, params: NvmfCreateSubsystem): MethodAnswer => {
  const { max_cntlid: max = 0xffef, min_cntlid: min = 1, model_number: model, nqn, serial_number: serial } = params
  if (!isText(serial ?? "", 20) || !isText(model ?? "", 40)) return Effect.fail(invalid)
  if (params.passthrough === true || params.enable_nssr === true) {
    const field = params.passthrough === true ? "passthrough" : "enable_nssr"
    return Effect.fail(invalidParams(`${field}: the embedded engine's target does not have it`))
  }
  if (params.max_discard_size_kib !== undefined || params.max_write_zeroes_size_kib !== undefined) {
    return Effect.fail(invalidParams("max_discard_size_kib, max_write_zeroes_size_kib: use dmrsl and wzsl"))
  }
  if (!isTarget(target, params.tgt_name)) return Effect.fail(internal(`Unable to find target ${params.tgt_name}`))
  const isFull = target.subsystems.size >= target.maxSubsystems || (params.max_namespaces ?? 0) > maxNamespaces
  if (isFull || target.subsystems.has(nqn) || nqnRule(nqn) !== undefined) {
    return Effect.fail(internal(`Unable to create subsystem ${nqn}`))
  }
  if (min > max || min < 1 || max > 0xffef) return Effect.fail(invalidParams(`Invalid cntlid range [${min}-${max}]`))
  const options = {
    nqn,
    isDiscovery: false,
    serialNumber: serial ?? "00000000000000000000",
    modelNumber: model ?? "SPDK bdev Controller",
    maxNamespaces: params.max_namespaces || 32,
    anaReporting: params.ana_reporting ?? false,
    minControllerId: min,
    maxControllerId: max,
    dmrsl: params.dmrsl ?? 2_097_152,
    wzsl: params.wzsl ?? 12
  }
  target.subsystems.set(nqn, new Subsystem(options, params.allow_any_host ?? false))
  return answerTrue
}

const addSubsystems = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add("nvmf_create_subsystem", (params) => createSubsystem(target, params), { onInvalid })
  table.add("nvmf_delete_subsystem", (params) => onSubsystem(target, params, (found) => remove(target, found)), {
    onInvalid
  })
  table.add(
    "nvmf_get_subsystems",
    (params) => {
      if (!isTarget(target, params.tgt_name)) return Effect.fail(noTarget)
      if (params.nqn === undefined) return Effect.succeed([...target.subsystems.values()].map(dumpSubsystem))
      const subsystem = target.subsystems.get(params.nqn)
      return subsystem === undefined ? Effect.fail(errnoFault(-ENODEV)) : Effect.succeed([dumpSubsystem(subsystem)])
    },
    { isOptional: true, onInvalid }
  )
  table.addStartup(
    "nvmf_set_max_subsystems",
    (params) => {
      target.maxSubsystems = params.max_subsystems
      return answerTrue
    },
    { onInvalid }
  )
}

const remove = (target: Target, subsystem: Subsystem): MethodAnswer =>
  Effect.callback((resume) => {
    target.subsystems.delete(subsystem.nqn)
    for (const controller of [...subsystem.controllers.values()]) controller.destroy()
    for (const { address } of subsystem.listeners.splice(0)) target.stopListening(address)
    target.discoveryChanged()
    let left = 1
    const done = (): void => {
      if (--left === 0) resume(answerTrue)
    }
    for (const namespace of [...subsystem.namespaces.values()]) {
      left++
      subsystem.removeNamespace(namespace.nsid, done)
    }
    done()
  })
