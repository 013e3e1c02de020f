/**
 * The RPC methods of the NVMe-oF target, in SPDK's names and words: transports, subsystems, hosts, namespaces, referrals. What
 * concerns listeners and what is told about connections is in rpcNvmfListeners.ts.
 */
import * as Effect from "effect/Effect"
import type { NvmfCreateTransport } from "../../generated/RpcNvmf.ts"
import { nqnRule } from "../nvme/nqn.ts"
import type { Json } from "./bdev.ts"
import type { BdevRegistry } from "./bdevRegistry.ts"
import { claimant, Namespace, Subsystem, Target, type TransportOptions } from "./nvmf/target.ts"
import { addNvmfSettings } from "./rpcNvmfConfig.ts"
import { addNvmfListeners, dumpAddress } from "./rpcNvmfListeners.ts"
import { type Answer, errnoFault, invalidParams, RpcFault, type RpcTable } from "./rpcTable.ts"
import { ENODEV } from "./status.ts"
import * as Uuid from "./uuid.ts"

export const invalid = invalidParams()
export const internal = (message = "Internal error"): RpcFault => new RpcFault(-32603, message)
const noTarget = internal("Unable to find a target.")

export const answerTrue: Answer = Effect.succeed(true)

/** The only target has this name; no name means it too. */
export const isTarget = (target: Target, name: string | undefined): boolean =>
  name === undefined || name === target.name

/** Runs on a subsystem; SPDK says "Invalid parameters" when there is none. */
export const onSubsystem = (
  target: Target,
  params: { readonly nqn: string; readonly tgt_name?: string | undefined },
  run: (subsystem: Subsystem) => Answer
): Answer => {
  if (!isTarget(target, params.tgt_name)) return Effect.fail(noTarget)
  const subsystem = target.subsystems.get(params.nqn)
  return subsystem === undefined ? Effect.fail(invalid) : run(subsystem)
}

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

/** What this target cannot do differently: the values that SPDK has by default. */
const fixed = {
  iobuf_small_cache_size: 0xffff_ffff,
  iobuf_large_cache_size: 0xffff_ffff,
  dif_insert_or_strip: false,
  zcopy: false,
  sock_priority: 0,
  abort_timeout_sec: 1,
  ack_timeout: 0,
  data_wr_pool_size: 0,
  disable_command_passthru: false
} as const

const settable: ReadonlySet<string> = new Set(["trtype", "tgt_name", ...Object.keys(defaults)])

const transportOptions = (params: NvmfCreateTransport): TransportOptions | RpcFault => {
  for (const [name, value] of Object.entries(params)) {
    // What is switched off is not asked for; rpc.py sends all switches of all transports.
    if (settable.has(name) || value === undefined || value === false) continue
    if (!(name in fixed) || fixed[name as keyof typeof fixed] !== value) {
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

export const dumpTransport = (options: TransportOptions) => ({
  trtype: "TCP",
  max_queue_depth: options.max_queue_depth,
  max_io_qpairs_per_ctrlr: options.max_io_qpairs_per_ctrlr,
  in_capsule_data_size: options.in_capsule_data_size,
  max_io_size: options.max_io_size,
  max_aq_depth: options.max_aq_depth,
  ...fixed,
  c2h_success: options.c2h_success,
  kas: options.kas,
  min_kato: options.min_kato
})

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

const addSubsystems = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_create_subsystem",
    (params) => {
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
      const isFull = target.subsystems.size >= target.maxSubsystems
      if (isFull || target.subsystems.has(nqn) || nqnRule(nqn) !== undefined) {
        return Effect.fail(internal(`Unable to create subsystem ${nqn}`))
      }
      if (min > max || min < 1 || max > 0xffef)
        return Effect.fail(invalidParams(`Invalid cntlid range [${min}-${max}]`))
      target.subsystems.set(
        nqn,
        new Subsystem(
          {
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
          },
          params.allow_any_host ?? false
        )
      )
      return answerTrue
    },
    { onInvalid }
  )
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

const remove = (target: Target, subsystem: Subsystem): Answer =>
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

const dumpSubsystem = (subsystem: Subsystem): Json => {
  const { options } = subsystem
  const common = {
    nqn: options.nqn,
    subtype: options.isDiscovery ? "Discovery" : "NVMe",
    listen_addresses: subsystem.listeners.map(({ address }) => dumpAddress(address)),
    allow_any_host: subsystem.allowAnyHost,
    hosts: subsystem.hosts.map((nqn) => ({ nqn }))
  }
  if (options.isDiscovery) return common
  return {
    ...common,
    serial_number: options.serialNumber,
    model_number: options.modelNumber,
    max_namespaces: options.maxNamespaces,
    passthrough: false,
    min_cntlid: options.minControllerId,
    max_cntlid: options.maxControllerId,
    dmrsl: options.dmrsl,
    wzsl: options.wzsl,
    namespaces: subsystem.sortedNamespaces().map(({ anaGroup, bdev, ids, nsid }) => ({
      nsid,
      bdev_name: bdev.name,
      name: bdev.name,
      ...(ids.nguid === undefined ? {} : { nguid: ids.nguid }),
      ...(ids.eui64 === undefined ? {} : { eui64: ids.eui64 }),
      uuid: ids.uuid,
      ...(options.anaReporting ? { anagrpid: anaGroup } : {})
    }))
  }
}

const hexOr = (given: string | undefined, digits: number): string | undefined | RpcFault => {
  if (given === undefined || /^0*$/.test(given))
    return given === undefined || given.length === digits ? undefined : invalid
  return given.length === digits && /^[0-9a-fA-F]*$/.test(given) ? given.toUpperCase() : invalid
}

const freeNsid = (subsystem: Subsystem): number => {
  for (let nsid = 1; nsid <= subsystem.options.maxNamespaces; nsid++) if (!subsystem.namespaces.has(nsid)) return nsid
  return 0
}

const addNamespaces = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_subsystem_add_ns",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const { namespace } = params
        const nsid = namespace.nsid || freeNsid(subsystem)
        const { isDiscovery, maxNamespaces } = subsystem.options
        const anaGroup = namespace.anagrpid || nsid
        const nguid = hexOr(namespace.nguid, 32)
        const eui64 = hexOr(namespace.eui64, 16)
        if (nguid instanceof RpcFault || eui64 instanceof RpcFault) return Effect.fail(invalid)
        if (namespace.ptpl_file !== undefined || namespace.hide_metadata === true) {
          const field = namespace.ptpl_file === undefined ? "hide_metadata" : "ptpl_file"
          return Effect.fail(invalidParams(`${field}: the embedded engine's target does not have it`))
        }
        if (isDiscovery || nsid === 0 || nsid > maxNamespaces || anaGroup > maxNamespaces) return Effect.fail(invalid)
        if (subsystem.namespaces.has(nsid)) return Effect.fail(invalid)
        const { registry } = target
        const descriptor = registry.open(namespace.bdev_name, true, (event) => {
          if (event === "removed") subsystem.removeNamespace(nsid)
          else {
            const changed = subsystem.namespaces.get(nsid)
            if (changed !== undefined) subsystem.namespaceChanged(changed)
          }
        })
        if (typeof descriptor === "number") return Effect.fail(invalid)
        if (!Number.isInteger(Math.log2(descriptor.bdev.blockSize)) || registry.claim(descriptor, claimant) !== 0) {
          registry.close(descriptor)
          return Effect.fail(invalid)
        }
        const { uuid } = descriptor.bdev.properties
        const made = new Namespace(target, {
          nsid,
          ids: {
            uuid: Uuid.normalize(namespace.uuid) ?? uuid,
            nguid: nguid ?? uuid.replaceAll("-", "").toUpperCase(),
            eui64
          },
          descriptor,
          isVisibleToAll: namespace.no_auto_visible !== true,
          anaGroup
        })
        subsystem.namespaces.set(nsid, made)
        subsystem.namespaceChanged(made)
        return Effect.succeed(nsid)
      }),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_remove_ns",
    (params) =>
      onSubsystem(target, params, (subsystem) =>
        Effect.callback((resume) => {
          if (!subsystem.removeNamespace(params.nsid, () => resume(answerTrue))) resume(Effect.fail(invalid))
        })
      ),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_set_ns_ana_group",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const namespace = subsystem.namespaces.get(params.nsid)
        const isGroup = params.anagrpid >= 1 && params.anagrpid <= subsystem.options.maxNamespaces
        if (namespace === undefined || !isGroup) return Effect.fail(invalid)
        namespace.anaGroup = params.anagrpid
        subsystem.namespaceChanged(namespace)
        return answerTrue
      }),
    { onInvalid }
  )
  const addVisibility = (name: "nvmf_ns_add_host" | "nvmf_ns_remove_host", visible: boolean): void =>
    table.add(
      name,
      (params) =>
        onSubsystem(target, params, (subsystem) => {
          const namespace = subsystem.namespaces.get(params.nsid)
          if (namespace === undefined || namespace.isVisibleToAll || nqnRule(params.host) !== undefined) {
            return Effect.fail(invalid)
          }
          if (namespace.hosts.has(params.host) === visible) return answerTrue
          if (visible) namespace.hosts.add(params.host)
          else namespace.hosts.delete(params.host)
          for (const controller of subsystem.controllers.values()) {
            if (controller.hostNqn === params.host) controller.namespaceChanged(namespace.nsid)
          }
          return answerTrue
        }),
      { onInvalid }
    )
  addVisibility("nvmf_ns_add_host", true)
  addVisibility("nvmf_ns_remove_host", false)
}

const addHosts = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_subsystem_add_host",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const { dhchap_ctrlr_key: controllerKey, dhchap_key: key, host, psk } = params
        // There is no keyring here, so no key of this name.
        if (key !== undefined || controllerKey !== undefined || psk !== undefined) return Effect.fail(invalid)
        if (nqnRule(host) !== undefined || subsystem.hosts.includes(host)) return Effect.fail(internal())
        subsystem.hosts.unshift(host)
        if (subsystem.listeners.length > 0) target.discoveryChanged(host)
        return answerTrue
      }),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_remove_host",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        const index = subsystem.hosts.indexOf(params.host)
        if (index === -1) return Effect.fail(internal())
        subsystem.hosts.splice(index, 1)
        if (subsystem.listeners.length > 0) target.discoveryChanged(params.host)
        for (const controller of [...subsystem.controllers.values()]) {
          if (controller.hostNqn === params.host) controller.destroy()
        }
        return answerTrue
      }),
    { onInvalid }
  )
  table.add(
    "nvmf_subsystem_allow_any_host",
    (params) =>
      onSubsystem(target, params, (subsystem) => {
        subsystem.allowAnyHost = params.allow_any_host
        if (subsystem.listeners.length > 0) target.discoveryChanged()
        return answerTrue
      }),
    { onInvalid }
  )
}

const addReferrals = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_discovery_add_referral",
    ({ address, secure_channel: secure = false, subnqn = "", tgt_name: name }) => {
      if (!isTarget(target, name)) return Effect.fail(noTarget)
      if (address.trtype.toUpperCase() !== "TCP" || address.traddr.length > 255) return Effect.fail(invalid)
      if (Buffer.byteLength(subnqn) > 223) return Effect.fail(invalidParams("Invalid subsystem NQN"))
      const { adrfam = "IPv4", traddr, trsvcid = "" } = address
      if (trsvcid === "") return Effect.fail(internal("Service ID is required."))
      if (trsvcid.length > 31) return Effect.fail(invalid)
      const referral = {
        trtype: "TCP",
        adrfam: adrfam.toLowerCase() === "ipv6" ? "IPv6" : "IPv4",
        traddr,
        trsvcid,
        subnqn: subnqn === "" ? "nqn.2014-08.org.nvmexpress.discovery" : subnqn,
        secure
      }
      // A second one of the same place changes nothing.
      if (target.referrals.some((one) => isSame(one, referral))) return answerTrue
      target.referrals.unshift(referral)
      target.discoveryChanged()
      return answerTrue
    },
    { onInvalid }
  )
  table.add(
    "nvmf_discovery_remove_referral",
    ({ address, subnqn = "nqn.2014-08.org.nvmexpress.discovery", tgt_name: name }) => {
      if (!isTarget(target, name)) return Effect.fail(noTarget)
      const { traddr, trsvcid = "" } = address
      const index = target.referrals.findIndex((one) => isSame(one, { traddr, trsvcid, subnqn }))
      if (index === -1) return Effect.fail(internal("Unable to remove a referral."))
      target.referrals.splice(index, 1)
      target.discoveryChanged()
      return answerTrue
    },
    { onInvalid }
  )
  table.add(
    "nvmf_discovery_get_referrals",
    (params) =>
      isTarget(target, params.tgt_name)
        ? Effect.succeed(
            target.referrals.map(({ adrfam, secure, subnqn, traddr, trsvcid, trtype }) => ({
              address: { trtype, adrfam, traddr, trsvcid },
              secure_channel: secure,
              subnqn
            }))
          )
        : Effect.fail(internal("Unable to find a target")),
    { isOptional: true, onInvalid }
  )
}

interface Place {
  readonly traddr: string
  readonly trsvcid: string
  readonly subnqn: string
}
const isSame = (a: Place, b: Place): boolean =>
  a.traddr === b.traddr && a.trsvcid === b.trsvcid && a.subnqn === b.subnqn
