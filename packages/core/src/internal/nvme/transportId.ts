/**
 * Transport ids between the engines' fields and SPDK's string form, `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420
 * subnqn:nqn...` (`spdk_nvme_transport_id_parse`), with the rules for each field.
 */
import * as net from "node:net"
import * as Result from "effect/Result"
import type { NvmeTransportIdFields } from "../engine/nvme.ts"
import { dialedNqnRule, discoveryNqn } from "./wire/nqn.ts"

/** The field at fault, and the rule that goes on after field and value. */
export interface FieldIssue {
  readonly field: string
  readonly rule: string
  readonly value?: unknown
}

export const transportTypes = ["PCIe", "TCP", "RDMA", "VFIOUSER"] as const
export const addressFamilies = ["IPv4", "IPv6", "IB", "FC", "Intra_Host"] as const

export const defaultServiceId = "4420"
/** `SPDK_NVMF_TRADDR_MAX_LEN` and `SPDK_NVMF_TRSVCID_MAX_LEN`, with room for a NUL. */
const maxAddressBytes = 255
const maxServiceIdBytes = 31

type Input = { readonly [K in keyof NvmeTransportIdFields]?: unknown }

const bad = (field: string, rule: string, value?: unknown): Result.Result<never, FieldIssue> =>
  Result.fail({ field, rule, value })

/** What may be left out gets its default. */
export const resolveTransportId = (input: Input): Result.Result<NvmeTransportIdFields, FieldIssue> => {
  if (typeof input !== "object" || input === null) return bad("transportId", "is not a transport id", input)
  const trtype = transportTypes.find((one) => one.toLowerCase() === String(input.trtype).toLowerCase())
  if (trtype === undefined) return bad("trtype", `is none of ${transportTypes.join(", ")}`, input.trtype)
  const { traddr, subnqn = discoveryNqn, priority = 0 } = input
  if (typeof traddr !== "string") return bad("traddr", "is not a string", traddr)
  const text = textRule(traddr, maxAddressBytes)
  if (text !== undefined) return bad("traddr", text, traddr)
  if (typeof subnqn !== "string") return bad("subnqn", "is not a string", subnqn)
  if (typeof priority !== "number" || !Number.isInteger(priority) || priority < 0 || priority > 999) {
    return bad("priority", "is not a whole number from 0 to 999", priority)
  }
  const common = { trtype, traddr, subnqn, priority }
  return trtype === "TCP" || trtype === "RDMA" ? resolveFabrics(input, common) : resolveLocal(input, common)
}

const textRule = (value: string, maxBytes: number): string | undefined => {
  if (value === "") return "is empty"
  // SPDK's string form ends a value at white space.
  if (/[\s\0]/.test(value)) return "contains white space or a NUL character"
  return Buffer.byteLength(value) > maxBytes ? `is longer than ${maxBytes} bytes` : undefined
}

type Common = Pick<NvmeTransportIdFields, "trtype" | "traddr" | "subnqn" | "priority">

const resolveFabrics = (input: Input, common: Common): Result.Result<NvmeTransportIdFields, FieldIssue> => {
  const rule = dialedNqnRule(common.subnqn)
  if (rule !== undefined) return bad("subnqn", rule, common.subnqn)
  const version = net.isIP(common.traddr)
  const wanted = input.adrfam ?? (version === 6 ? "IPv6" : "IPv4")
  const adrfam = addressFamilies.find((one) => one.toLowerCase() === String(wanted).toLowerCase())
  if (adrfam !== "IPv4" && adrfam !== "IPv6" && !(adrfam === "IB" && common.trtype === "RDMA")) {
    return bad("adrfam", `is none of IPv4, IPv6${common.trtype === "RDMA" ? ", IB" : ""}`, input.adrfam)
  }
  if ((version === 4 && adrfam === "IPv6") || (version === 6 && adrfam === "IPv4")) {
    return bad("traddr", `is not an address of ${adrfam}`, common.traddr)
  }
  const trsvcid = input.trsvcid ?? defaultServiceId
  if (typeof trsvcid !== "string" || !/^\d{1,5}$/.test(trsvcid) || Number(trsvcid) < 1 || Number(trsvcid) > 65_535) {
    return bad("trsvcid", "is not the number of a port, 1 to 65535, as a string", trsvcid)
  }
  return Result.succeed({ ...common, adrfam, trsvcid })
}

const resolveLocal = (input: Input, common: Common): Result.Result<NvmeTransportIdFields, FieldIssue> => {
  if (input.adrfam !== undefined) return bad("adrfam", `has no effect with ${common.trtype}`, input.adrfam)
  const { trsvcid = "" } = input
  if (typeof trsvcid !== "string") return bad("trsvcid", "is not a string", trsvcid)
  const isPci = common.trtype === "PCIe"
  if (trsvcid !== "" && (isPci || textRule(trsvcid, maxServiceIdBytes) !== undefined)) {
    return bad("trsvcid", `has no effect with ${common.trtype}`, trsvcid)
  }
  if (!isPci) return Result.succeed({ ...common, adrfam: undefined, trsvcid })
  const traddr = normalizePciAddress(common.traddr)
  return traddr === undefined
    ? bad("traddr", "is not a PCI address such as 0000:5e:00.0", common.traddr)
    : Result.succeed({ ...common, traddr, adrfam: undefined, trsvcid })
}

const pciForms: ReadonlyArray<[RegExp, ReadonlyArray<"domain" | "bus" | "device" | "function">]> = [
  [/^(\w+):(\w+):(\w+)\.(\w+)$/, ["domain", "bus", "device", "function"]],
  [/^(\w+)\.(\w+)\.(\w+)\.(\w+)$/, ["domain", "bus", "device", "function"]],
  [/^(\w+):(\w+):(\w+)$/, ["domain", "bus", "device"]],
  [/^(\w+):(\w+)\.(\w+)$/, ["bus", "device", "function"]],
  [/^(\w+)\.(\w+)\.(\w+)$/, ["bus", "device", "function"]],
  [/^(\w+)[:.](\w+)$/, ["bus", "device"]]
]

/** All forms that SPDK reads, in the one that it writes: `0000:5e:00.0`. undefined when it is none. */
export const normalizePciAddress = (address: string): string | undefined => {
  for (const [pattern, names] of pciForms) {
    const match = pattern.exec(address)
    if (match === null) continue
    const parts = { domain: 0, bus: 0, device: 0, function: 0 }
    for (const [i, name] of names.entries()) {
      const digits = match[i + 1] ?? ""
      if (!/^[0-9a-fA-F]{1,8}$/.test(digits)) return undefined
      parts[name] = Number.parseInt(digits, 16)
    }
    if (parts.bus > 0xff || parts.device > 0x1f || parts.function > 7) return undefined
    const hex = (value: number, width: number) => value.toString(16).padStart(width, "0")
    return `${hex(parts.domain, 4)}:${hex(parts.bus, 2)}:${hex(parts.device, 2)}.${hex(parts.function, 1)}`
  }
  return undefined
}

const keys = ["trtype", "adrfam", "traddr", "trsvcid", "subnqn", "priority"] as const
/** SPDK's programs read these out of the same string; for us they are options of their own. */
const optionsOfOthers = new Set(["hostaddr", "hostsvcid", "hostnqn", "ns", "alt_traddr"])

/**
 * Keys in any case, `:` or `=` behind them, white space between. A key that comes twice or is not known is refused, where SPDK
 * takes the last one or logs: a word that has no effect is a mistake.
 */
export const parseTransportId = (text: string): Result.Result<NvmeTransportIdFields, FieldIssue> => {
  if (typeof text !== "string") return bad("transportId", "is not a string", text)
  const found: Record<string, string | number> = {}
  for (const word of text.split(/[ \t\n]+/)) {
    if (word === "") continue
    const separator = word.search(/[:=]/)
    if (separator <= 0) return bad("transportId", `has the word "${word}" without a key`, text)
    const name = word.slice(0, separator).toLowerCase()
    const value = word.slice(separator + 1)
    const key = keys.find((one) => one === name)
    if (key === undefined) {
      const rule = optionsOfOthers.has(name)
        ? "is an option of connect and no part of a transport id"
        : "is no key of a transport id"
      return bad("transportId", `has the key "${name}", which ${rule}`, text)
    }
    if (value === "") return bad(key, "has no value", text)
    if (found[key] !== undefined) return bad(key, "comes twice", text)
    if (key === "priority" && !/^\d{1,3}$/.test(value)) return bad(key, "is not a whole number from 0 to 999", value)
    found[key] = key === "priority" ? Number(value) : value
  }
  return resolveTransportId(found)
}

/** In the order SPDK writes them. */
export const formatTransportId = (id: NvmeTransportIdFields): string => {
  const words = [`trtype:${id.trtype}`]
  if (id.adrfam !== undefined) words.push(`adrfam:${id.adrfam}`)
  words.push(`traddr:${id.traddr}`)
  if (id.trsvcid !== "") words.push(`trsvcid:${id.trsvcid}`)
  if (id.subnqn !== "") words.push(`subnqn:${id.subnqn}`)
  if (id.priority !== 0) words.push(`priority:${id.priority}`)
  return words.join(" ")
}
