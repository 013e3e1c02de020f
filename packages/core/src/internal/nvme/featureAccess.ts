/**
 * Get Features and Set Features.
 */
import * as Effect from "effect/Effect"
import type {
  AdminError,
  FeatureGetOptions,
  FeatureSetOptions,
  NvmeFeatures,
  PassthruCommand,
  RawFeatureGet,
  RawFeatureSet
} from "../../NvmeController.ts"
import type { FeatureInput, FeatureName, FeatureValue } from "../../NvmeData.ts"
import { failInvalid, invalid, type InvalidArgument, type SpdkError } from "../../SpdkError.ts"
import { type AdminQueue, decodedOr } from "./adminQueue.ts"
import { AdminOpcode } from "./wire/command.ts"
import {
  decodeTimestamp,
  encodeTimestamp,
  FeatureId,
  FeatureSelect,
  featureWords,
  timestampBytes
} from "./wire/features.ts"
import { formatUuid } from "./wire/identify.ts"

const of = "NvmeController.features"
/** Data of a feature is short: the longest that the specification has is 4 KiB. */
const maxDataBytes = 4096

/** What it hands over is for as long as the device likes, and no completion ends that. */
const hostMemoryBuffer = 0x0d
const hostMemoryRule = "is the host memory buffer, which hands the device memory of this machine"

/** The same as a command. */
export const refusedFeature = (
  operation: string,
  resource: string,
  { cdw10 = 0, opcode }: PassthruCommand
): SpdkError<InvalidArgument> | undefined =>
  opcode === AdminOpcode.SetFeatures && (cdw10 & 0xff) === hostMemoryBuffer
    ? invalid(operation, "cdw10", hostMemoryRule, cdw10, resource)
    : undefined

const getRaw = (queue: AdminQueue, operation: string, options: RawFeatureGet) => {
  const { feature, lengthBytes, nsid = 0, select = "current", selector = 0 } = options
  const refused =
    checkNumber(queue, operation, "feature", feature, 0xff) ??
    checkNumber(queue, operation, "nsid", nsid, 0xffff_ffff) ??
    checkNumber(queue, operation, "selector", selector, 0xffff_ffff) ??
    (lengthBytes === undefined ? undefined : checkNumber(queue, operation, "lengthBytes", lengthBytes, maxDataBytes, 4))
  if (refused !== undefined) return refused
  const code = FeatureSelect[select]
  if (code === undefined) {
    const rule = `is none of ${Object.keys(FeatureSelect).join(", ")}`
    return failInvalid(operation, "select", rule, select, queue.resource)
  }
  const cdw10 = feature + code * 2 ** 8
  return queue.run(operation, { opcode: AdminOpcode.GetFeatures, nsid, cdw10, cdw11: selector, lengthBytes })
}

const setRaw = (queue: AdminQueue, operation: string, options: RawFeatureSet) => {
  const { data, dword11 = 0, dword12 = 0, feature, nsid = 0, save = false } = options
  const refused =
    checkNumber(queue, operation, "feature", feature, 0xff) ??
    checkNumber(queue, operation, "nsid", nsid, 0xffff_ffff) ??
    checkNumber(queue, operation, "dword11", dword11, 0xffff_ffff) ??
    checkNumber(queue, operation, "dword12", dword12, 0xffff_ffff) ??
    (data === undefined ? undefined : checkNumber(queue, operation, "data.length", data.length, maxDataBytes, 4))
  if (refused !== undefined) return refused
  if (feature === hostMemoryBuffer) return failInvalid(operation, "feature", hostMemoryRule, feature, queue.resource)
  if (typeof save !== "boolean") return failInvalid(operation, "save", "is not a boolean", save, queue.resource)
  const cdw10 = feature + (save ? 2 ** 31 : 0)
  return queue.run(operation, {
    opcode: AdminOpcode.SetFeatures,
    nsid,
    cdw10,
    cdw11: dword11,
    cdw12: dword12,
    data
  })
}

const checkNumber = (queue: AdminQueue, operation: string, field: string, value: number, most: number, step = 1) => {
  if (Number.isInteger(value) && value >= step - 1 && value <= most && value % step === 0) return undefined
  const rule = step === 1 ? `is not a whole number from 0 to ${most}` : `is not a multiple of ${step} up to ${most}`
  return failInvalid(operation, field, rule, value, queue.resource)
}

const isFeature = (name: unknown): name is FeatureName => typeof name === "string" && Object.hasOwn(featureWords, name)

const get = <Name extends FeatureName>(
  queue: AdminQueue,
  name: Name,
  options: FeatureGetOptions = {}
): Effect.Effect<FeatureValue<Name>, AdminError> => {
  if (!isFeature(name)) return failInvalid(`${of}.get`, "name", "is not a feature with a name", name, queue.resource)
  // The table's decoder of this very name.
  const decode = featureWords[name].decode as (dword: number) => FeatureValue<Name>
  return Effect.map(getRaw(queue, `${of}.get`, { ...options, feature: FeatureId[name] }), ({ dword0 }) =>
    decode(dword0)
  )
}

const set = <Name extends FeatureName>(
  queue: AdminQueue,
  name: Name,
  value: FeatureInput<Name>,
  options: FeatureSetOptions = {}
): Effect.Effect<void, AdminError> => {
  const operation = `${of}.set`
  if (!isFeature(name)) return failInvalid(operation, "name", "is not a feature with a name", name, queue.resource)
  // The table's encoder of this very name.
  const encode = featureWords[name].encode as (value: FeatureInput<Name>) => number
  const names = Object.keys(featureWords[name].decode(0))
  const stranger = Object.keys(value ?? {}).find((field) => !names.includes(field))
  if (stranger !== undefined) {
    return failInvalid(operation, `value.${stranger}`, `is none of ${names.join(", ")}`, undefined, queue.resource)
  }
  let dword11: number
  try {
    dword11 = encode(value)
  } catch (cause) {
    const rule = cause instanceof RangeError ? `does not fit: ${cause.message}` : "is not an object"
    return failInvalid(operation, "value", rule, value, queue.resource)
  }
  return Effect.asVoid(setRaw(queue, operation, { ...options, feature: FeatureId[name], dword11 }))
}

export const makeFeatures = (queue: AdminQueue): NvmeFeatures => ({
  get: (name, options) => Effect.suspend(() => get(queue, name, options)),
  set: (name, value, options) => Effect.suspend(() => set(queue, name, value, options)),
  getRaw: (options) => Effect.suspend(() => getRaw(queue, `${of}.getRaw`, options)),
  setRaw: (options) => Effect.suspend(() => setRaw(queue, `${of}.setRaw`, options)),
  timestamp: Effect.suspend(() =>
    Effect.flatMap(
      getRaw(queue, `${of}.timestamp`, { feature: FeatureId.timestamp, lengthBytes: timestampBytes }),
      ({ data }) => decodedOr(`${of}.timestamp`, queue.resource, decodeTimestamp(data))
    )
  ),
  setTimestamp: (time) =>
    Effect.suspend(() => {
      const millis = time instanceof Date ? time.getTime() : Number.NaN
      if (!(millis >= 0 && millis < 2 ** 48)) {
        return failInvalid(
          `${of}.setTimestamp`,
          "time",
          "is not a date from 1970 to 10889",
          String(time),
          queue.resource
        )
      }
      const data = encodeTimestamp(millis)
      return Effect.asVoid(setRaw(queue, `${of}.setTimestamp`, { feature: FeatureId.timestamp, data }))
    }),
  hostIdentifier: Effect.suspend(() =>
    Effect.map(
      // EXHID: the form of 16 bytes.
      getRaw(queue, `${of}.hostIdentifier`, { feature: FeatureId.hostIdentifier, selector: 1, lengthBytes: 16 }),
      ({ data }) => formatUuid(data)
    )
  )
})
