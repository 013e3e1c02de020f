/**
 * Options of subsystems, checked in the caller's words before anything is sent: SPDK answers "Invalid parameters" to most of
 * what can be wrong.
 */
import { type FieldIssue, isUuid, nqnRule, resolveTransportId } from "@effect-spdk/core/Engine"
import { failInvalid, type InvalidArgument, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as net from "node:net"
import type { AddressOptions, HostOptions, NamespaceOptions, SubsystemOptions } from "../NvmfOptions.ts"

type Checked<A = void> = Effect.Effect<A, SpdkError<InvalidArgument>>

export const defaultMaxNamespaces = 32
const maxCntlid = 0xffef

export const checkNqn = (operation: string, field: string, nqn: string): Checked => {
  const rule = nqnRule(nqn)
  return rule === undefined ? Effect.void : failInvalid(operation, field, rule, nqn)
}

/** The field at fault, in the order in which they are looked at. */
const refuse = (operation: string, issue: FieldIssue | undefined): Checked =>
  issue === undefined ? Effect.void : failInvalid(operation, issue.field, issue.rule, issue.value)

const integerIssue = (field: string, value: number | undefined, from: number, to: number): FieldIssue | undefined =>
  value === undefined || (Number.isInteger(value) && value >= from && value <= to)
    ? undefined
    : { field, rule: `is not a whole number from ${from} to ${to}`, value }

const textIssue = (field: string, value: string | undefined, maxCharacters: number): FieldIssue | undefined => {
  if (value === undefined) return undefined
  if (!/^[\x20-\x7e]+$/.test(value)) return { field, rule: "is not printable ASCII", value }
  return value.length <= maxCharacters
    ? undefined
    : { field, rule: `is longer than ${maxCharacters} characters`, value }
}

export const checkSubsystem = (options: SubsystemOptions): Checked => {
  const operation = "NvmfTarget.subsystem"
  const { maxCntlid: to = maxCntlid, minCntlid: from = 1 } = options
  return Effect.andThen(
    checkNqn(operation, "nqn", options.nqn),
    refuse(
      operation,
      textIssue("serialNumber", options.serialNumber, 20) ??
        textIssue("modelNumber", options.modelNumber, 40) ??
        integerIssue("maxNamespaces", options.maxNamespaces, 1, 0xffff) ??
        integerIssue("minCntlid", options.minCntlid, 1, maxCntlid) ??
        integerIssue("maxCntlid", options.maxCntlid, 1, maxCntlid) ??
        integerIssue("maxDeallocateBlocks", options.maxDeallocateBlocks, 0, 0xffff_ffff) ??
        integerIssue("writeZeroesSizeLimit", options.writeZeroesSizeLimit, 0, 0xff) ??
        (from <= to ? undefined : { field: "minCntlid", rule: `is above maxCntlid ${to}`, value: from })
    )
  )
}

/** What the subsystem was made with, as far as its children have to know. */
export interface SubsystemTraits {
  readonly nqn: string
  readonly maxNamespaces: number
  readonly anaReporting: boolean
}

export const checkNamespace = (options: NamespaceOptions, traits: SubsystemTraits): Checked => {
  const operation = "NvmfSubsystem.addNamespace"
  const { anaGroup, eui64, nguid, nsid, uuid } = options
  const issue =
    integerIssue("nsid", nsid, 1, traits.maxNamespaces) ??
    anaIssue("anaGroup", anaGroup, traits) ??
    integerIssue("anaGroup", anaGroup, 1, traits.maxNamespaces) ??
    hexIssue("nguid", nguid, 32) ??
    hexIssue("eui64", eui64, 16) ??
    (uuid === undefined || isUuid(uuid) ? undefined : { field: "uuid", rule: "is not a UUID", value: uuid }) ??
    (options.bdev === "" ? { field: "bdev", rule: "is empty" } : undefined) ??
    (options.persistReservationsIn === "" ? { field: "persistReservationsIn", rule: "is empty" } : undefined) ??
    (options.visibleTo === undefined || Array.isArray(options.visibleTo)
      ? undefined
      : { field: "visibleTo", rule: "is not an array", value: options.visibleTo })
  return Effect.andThen(
    refuse(operation, issue),
    Effect.forEach(options.visibleTo ?? [], (nqn) => checkNqn(operation, "visibleTo", nqn), { discard: true })
  )
}

const hexIssue = (field: string, value: string | undefined, digits: number): FieldIssue | undefined => {
  if (value === undefined) return undefined
  if (value.length !== digits || !/^[0-9a-fA-F]+$/.test(value)) {
    return { field, rule: `does not have ${digits} hexadecimal digits`, value }
  }
  // All zeroes stand for none.
  return /^0+$/.test(value) ? { field, rule: "is the zero UUID, which means none", value } : undefined
}

const anaIssue = (field: string, value: unknown, traits: SubsystemTraits): FieldIssue | undefined =>
  value === undefined || traits.anaReporting ? undefined : { field, rule: "needs a subsystem with anaReporting" }

export const checkAna = (operation: string, field: string, value: unknown, traits: SubsystemTraits): Checked =>
  refuse(operation, anaIssue(field, value, traits))

export const checkAnaGroup = (operation: string, group: number | undefined, traits: SubsystemTraits): Checked =>
  refuse(operation, anaIssue("group", group ?? 1, traits) ?? integerIssue("group", group, 1, traits.maxNamespaces))

export const checkHost = (options: HostOptions): Checked => {
  const operation = "NvmfSubsystem.addHost"
  return Effect.andThen(
    checkNqn(operation, "nqn", options.nqn),
    refuse(
      operation,
      options.dhchapControllerKey !== undefined && options.dhchapKey === undefined
        ? { field: "dhchapControllerKey", rule: "needs dhchapKey" }
        : undefined
    )
  )
}

export interface AddressParams {
  readonly trtype: string
  readonly adrfam?: string | undefined
  readonly traddr: string
  readonly trsvcid?: string | undefined
}

export const addressParams = (
  operation: string,
  options: Omit<AddressOptions, "traddr"> & { readonly traddr?: string | undefined }
): Checked<AddressParams> => {
  const { adrfam, trsvcid, trtype = "TCP" } = options
  const traddr = options.traddr ?? (trtype === "VFIOUSER" ? "" : "127.0.0.1")
  const resolved = resolveTransportId({
    trtype,
    traddr,
    ...(adrfam === undefined ? {} : { adrfam }),
    ...(trsvcid === undefined ? {} : { trsvcid: String(trsvcid) })
  })
  if (Result.isFailure(resolved)) {
    const { field, rule, value } = resolved.failure
    return failInvalid(operation, field, rule, value)
  }
  const id = resolved.success
  return Effect.succeed({
    trtype: id.trtype,
    traddr: id.traddr,
    adrfam: id.adrfam,
    trsvcid: id.trsvcid === "" ? undefined : id.trsvcid
  })
}

/** SPDK keeps a referral to whatever it is given, and finds it again, to remove it, by a numerical address only. */
export const checkReferralAddress = (operation: string, { adrfam, traddr }: AddressParams): Checked => {
  const isNumerical =
    (adrfam !== "IPv4" || net.isIPv4(traddr)) && (adrfam !== "IPv6" || (net.isIPv6(traddr) && !traddr.includes("%")))
  return refuse(
    operation,
    isNumerical ? undefined : { field: "traddr", rule: `is not a numerical ${adrfam} address`, value: traddr }
  )
}

/** All addresses of a machine: `0.0.0.0`, and `::` in whatever way it is written. */
export const isWildcard = (traddr: string): boolean => /^0+(\.0+){3}$|^(?=.*:)[0:]+(:0+(\.0+){3})?$/.test(traddr)

/** Addresses are the same in whatever case SPDK writes them. */
export const addressKey = (address: AddressParams): string =>
  [address.trtype, address.adrfam ?? "", address.traddr, address.trsvcid ?? ""].join(" ").toLowerCase()

export const showAddress = ({ traddr, trsvcid }: AddressParams): string =>
  trsvcid === undefined ? traddr : `${traddr.includes(":") ? `[${traddr}]` : traddr}:${trsvcid}`
