/**
 * The RPC methods of the NVMe-oF target about who may come, and where else to look.
 */
import * as Effect from "effect/Effect"
import { discoveryNqn, nqnRule } from "../../nvme/wire/nqn.ts"
import type { Target } from "../nvmf/target.ts"
import { answerTrue, internal, invalid, isTarget, noTarget, onSubsystem } from "./nvmfAnswers.ts"
import { invalidParams, type RpcTable } from "./table.ts"

/** What an entry of the discovery log has room for. */
const maxAddressBytes = 255
const maxServiceIdBytes = 31

const families: { readonly [name: string]: string } = { ipv4: "IPv4", ipv6: "IPv6" }

export const addHosts = (table: RpcTable, target: Target): void => {
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

export const addReferrals = (table: RpcTable, target: Target): void => {
  const onInvalid = invalid
  table.add(
    "nvmf_discovery_add_referral",
    ({ address, secure_channel: secure = false, subnqn = "", tgt_name: name }) => {
      if (!isTarget(target, name)) return Effect.fail(noTarget)
      const { traddr, trsvcid = "" } = address
      const adrfam = families[address.adrfam?.toLowerCase() ?? "ipv4"]
      if (address.trtype.toUpperCase() !== "TCP" || adrfam === undefined) return Effect.fail(invalid)
      if (Buffer.byteLength(traddr) > maxAddressBytes) return Effect.fail(invalid)
      if (Buffer.byteLength(subnqn) > 223) return Effect.fail(invalidParams("Invalid subsystem NQN"))
      if (trsvcid === "") return Effect.fail(internal("Service ID is required."))
      if (Buffer.byteLength(trsvcid) > maxServiceIdBytes) return Effect.fail(invalid)
      const referral = {
        trtype: "TCP",
        adrfam,
        traddr,
        trsvcid,
        subnqn: subnqn === "" ? discoveryNqn : subnqn,
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
    ({ address, subnqn = discoveryNqn, tgt_name: name }) => {
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
