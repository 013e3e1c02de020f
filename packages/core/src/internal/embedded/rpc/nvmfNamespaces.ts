/**
 * The RPC methods of the NVMe-oF target about namespaces: what is exported, in which ANA group, and who sees it.
 */
import * as Effect from "effect/Effect"
import type { RpcMethods } from "../../../generated/RpcMethods.ts"
import { nqnRule } from "../../nvme/wire/nqn.ts"
import type { BdevDescriptor } from "../bdev/descriptor.ts"
import { claimant, Namespace, type Subsystem, type Target } from "../nvmf/target.ts"
import { answerTrue, invalid, onSubsystem } from "./nvmfAnswers.ts"
import { type MethodAnswer, invalidParams, RpcFault, type RpcTable } from "./table.ts"
import * as Uuid from "../bdev/uuid.ts"

export const addNamespaces = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_subsystem_add_ns",
    (params) => onSubsystem(target, params, (subsystem) => addNamespace(target, subsystem, params.namespace)),
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
  addVisibility(table, target, "nvmf_ns_add_host", true)
  addVisibility(table, target, "nvmf_ns_remove_host", false)
}

/** An identifier; undefined when it is left out, or all zero, which stands for none. */
const identifierOf = (given: string | undefined, digits: number): string | undefined | RpcFault => {
  if (given === undefined) return undefined
  if (given.length !== digits || !/^[0-9a-fA-F]*$/.test(given)) return invalid
  return /^0*$/.test(given) ? undefined : given.toUpperCase()
}

const freeNsid = (subsystem: Subsystem): number => {
  for (let nsid = 1; nsid <= subsystem.options.maxNamespaces; nsid++) if (!subsystem.namespaces.has(nsid)) return nsid
  return 0
}

const addNamespace = (
  target: Target,
  subsystem: Subsystem,
  wanted: RpcMethods["nvmf_subsystem_add_ns"]["namespace"]
): MethodAnswer => {
  const nsid = wanted.nsid || freeNsid(subsystem)
  const { isDiscovery, maxNamespaces } = subsystem.options
  const anaGroup = wanted.anagrpid || nsid
  const nguid = identifierOf(wanted.nguid, 32)
  const eui64 = identifierOf(wanted.eui64, 16)
  if (nguid instanceof RpcFault || eui64 instanceof RpcFault) return Effect.fail(invalid)
  if (wanted.ptpl_file !== undefined || wanted.hide_metadata === true) {
    const field = wanted.ptpl_file === undefined ? "hide_metadata" : "ptpl_file"
    return Effect.fail(invalidParams(`${field}: the embedded engine's target does not have it`))
  }
  if (isDiscovery || nsid === 0 || nsid > maxNamespaces || anaGroup > maxNamespaces) return Effect.fail(invalid)
  if (subsystem.namespaces.has(nsid)) return Effect.fail(invalid)
  const descriptor = claimed(target, subsystem, wanted.bdev_name, nsid)
  if (descriptor === undefined) return Effect.fail(invalid)
  const { uuid } = descriptor.bdev.properties
  const made = new Namespace(target, {
    nsid,
    ids: {
      uuid: Uuid.normalize(wanted.uuid) ?? uuid,
      nguid: nguid ?? uuid.replaceAll("-", "").toUpperCase(),
      eui64
    },
    descriptor,
    isVisibleToAll: wanted.no_auto_visible !== true,
    anaGroup
  })
  subsystem.namespaces.set(nsid, made)
  subsystem.namespaceChanged(made)
  return Effect.succeed(nsid)
}

/** The bdev for the target alone, whose events the namespace follows; undefined when it cannot be had or exported. */
const claimed = (target: Target, subsystem: Subsystem, bdevName: string, nsid: number): BdevDescriptor | undefined => {
  const { registry } = target
  const descriptor = registry.open(bdevName, true, (event) => {
    if (event === "removed") {
      subsystem.removeNamespace(nsid)
      return
    }
    const changed = subsystem.namespaces.get(nsid)
    if (changed !== undefined) subsystem.namespaceChanged(changed)
  })
  if (typeof descriptor === "number") return undefined
  // Identify tells the block size as a power of two.
  if (Number.isInteger(Math.log2(descriptor.bdev.blockSize)) && registry.claim(descriptor, claimant) === 0) {
    return descriptor
  }
  registry.close(descriptor)
  return undefined
}

const addVisibility = (
  table: RpcTable,
  target: Target,
  name: "nvmf_ns_add_host" | "nvmf_ns_remove_host",
  visible: boolean
): void =>
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
    { onInvalid: invalid }
  )
