/**
 * Reading log pages: Get Log Page in pieces, and the pages that are decoded.
 */
import * as Effect from "effect/Effect"
import type { LogPageOptions, NvmeLogPages, QueryError } from "../../NvmeController.ts"
import type { DiscoveredSubsystem, IdentifyController } from "../../NvmeData.ts"
import { failInvalid } from "../../SpdkError.ts"
import type { IoError } from "../io/ioCompletion.ts"
import { type AdminQueue, decodedOr } from "./adminQueue.ts"
import { AdminOpcode } from "./wire/command.ts"
import { subsystemOf } from "./discovered.ts"
import { readDiscoveryLog } from "./discoveryLog.ts"
import * as log from "./wire/logPages.ts"
import type { Malformed } from "./wire/struct.ts"
import type * as Result from "effect/Result"

/** The longest page that is read: what a caller says is a mistake beyond it. */
const maxLogBytes = 64 * 2 ** 20
/** Enough for a million namespaces; a controller that claims more has fewer. */
const maxAnaBytes = 4 * 2 ** 20

export const readLog = (
  queue: AdminQueue,
  operation: string,
  options: LogPageOptions
): Effect.Effect<Uint8Array, IoError> =>
  Effect.suspend(() => {
    const refused = checkLog(queue, operation, options)
    if (refused !== undefined) return refused
    const { lengthBytes, offsetBytes = 0 } = options
    // Whole pages of 4 KiB, because transfers that are not may need one descriptor more than MDTS counts.
    const piece = Math.max(4096, Math.floor(queue.maxDataBytes / 4096) * 4096)
    if (lengthBytes <= piece) return readPiece(queue, operation, options, offsetBytes, lengthBytes)
    const bytes = new Uint8Array(lengthBytes)
    const starts = Array.from({ length: Math.ceil(lengthBytes / piece) }, (_, i) => i * piece)
    return Effect.as(
      Effect.forEach(
        starts,
        (start) =>
          Effect.map(
            readPiece(queue, operation, options, offsetBytes + start, Math.min(piece, lengthBytes - start)),
            (part) => bytes.set(part, start)
          ),
        { discard: true }
      ),
      bytes
    )
  })

const checkLog = (queue: AdminQueue, operation: string, options: LogPageOptions) => {
  const whole = (field: keyof LogPageOptions, most: number, least = 0, step = 1) => {
    const value = options[field]
    if (value === undefined) return undefined
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most && value % step === 0) {
      return undefined
    }
    const multiple = step === 1 ? "a whole number" : `a multiple of ${step}`
    return failInvalid(operation, field, `is not ${multiple} from ${least} to ${most}`, value, queue.resource)
  }
  return (
    whole("logPage", 0xff) ??
    whole("lengthBytes", maxLogBytes, 4, 4) ??
    whole("offsetBytes", Number.MAX_SAFE_INTEGER, 0, 4) ??
    whole("nsid", log.allNamespaces) ??
    whole("specificField", 0x7f) ??
    whole("specificId", 0xffff)
  )
}

const readPiece = (
  queue: AdminQueue,
  operation: string,
  options: LogPageOptions,
  offsetBytes: number,
  lengthBytes: number
): Effect.Effect<Uint8Array, IoError> => {
  const { logPage, nsid = log.allNamespaces, specificField = 0, specificId = 0, retainEvent = false } = options
  const dwords = lengthBytes / 4 - 1
  return Effect.map(
    queue.run(operation, {
      opcode: AdminOpcode.GetLogPage,
      nsid,
      cdw10: logPage + specificField * 2 ** 8 + (retainEvent ? 2 ** 15 : 0) + (dwords % 2 ** 16) * 2 ** 16,
      cdw11: Math.floor(dwords / 2 ** 16) + specificId * 2 ** 16,
      cdw12: offsetBytes % 2 ** 32,
      cdw13: Math.floor(offsetBytes / 2 ** 32),
      lengthBytes
    }),
    ({ data }) => data
  )
}

/** `identify` tells how long some pages are. */
export const makeLogPages = (
  queue: AdminQueue,
  identify: Effect.Effect<IdentifyController, QueryError>
): NvmeLogPages => {
  const read = <A>(
    operation: string,
    options: LogPageOptions,
    decode: (bytes: Uint8Array) => Result.Result<A, Malformed>
  ): Effect.Effect<A, QueryError> =>
    Effect.flatMap(readLog(queue, operation, options), (bytes) => decodedOr(operation, queue.resource, decode(bytes)))
  return {
    raw: (options) => readLog(queue, "NvmeController.logPages.raw", options),
    health: (nsid) =>
      read(
        "NvmeController.logPages.health",
        { logPage: log.LogPageId.health, lengthBytes: 512, nsid },
        log.healthLog.decode
      ),
    errors: (count) => readErrors(queue, identify, count),
    firmware: read(
      "NvmeController.logPages.firmware",
      { logPage: log.LogPageId.firmware, lengthBytes: 512 },
      log.firmwareLog.decode
    ),
    changedNamespaces: read(
      "NvmeController.logPages.changedNamespaces",
      { logPage: log.LogPageId.changedNamespaces, lengthBytes: log.changedNamespacesBytes },
      log.decodeChangedNamespaces
    ),
    commandEffects: read(
      "NvmeController.logPages.commandEffects",
      { logPage: log.LogPageId.commandEffects, lengthBytes: 4096 },
      log.commandEffectsLog.decode
    ),
    ana: readAna(queue, identify),
    discovery: readDiscovery(queue, "NvmeController.logPages.discovery")
  }
}

const readErrors = (
  queue: AdminQueue,
  identify: Effect.Effect<IdentifyController, QueryError>,
  count: number | undefined
) => {
  const operation = "NvmeController.logPages.errors"
  if (count !== undefined && (!Number.isInteger(count) || count < 1 || count > 256)) {
    return failInvalid(operation, "count", "is not a whole number from 1 to 256", count, queue.resource)
  }
  return Effect.flatMap(identify, ({ errorLogEntries }) => {
    const lengthBytes = log.errorEntryBytes * Math.min(count ?? 256, errorLogEntries + 1)
    return Effect.flatMap(readLog(queue, operation, { logPage: log.LogPageId.error, lengthBytes }), (bytes) =>
      decodedOr(operation, queue.resource, log.decodeErrorLog(bytes))
    )
  })
}

/** As long as it can be with that many groups and namespaces. What the controller does not fill stays zero. */
const readAna = (queue: AdminQueue, identify: Effect.Effect<IdentifyController, QueryError>) => {
  const operation = "NvmeController.logPages.ana"
  return Effect.flatMap(identify, ({ anaGroups, maxAllowedNamespaces, maxNamespaceId }) => {
    const namespaces = maxAllowedNamespaces === 0 ? maxNamespaceId : maxAllowedNamespaces
    const longest = log.anaHeaderBytes + anaGroups * log.anaGroupBytes + 4 * namespaces
    const lengthBytes = Math.min(longest, maxAnaBytes)
    return Effect.flatMap(readLog(queue, operation, { logPage: log.LogPageId.ana, lengthBytes }), (bytes) =>
      decodedOr(operation, queue.resource, log.decodeAnaLog(bytes))
    )
  })
}

/** Of a discovery controller: all entries of one generation. */
export const readDiscovery = (
  queue: AdminQueue,
  operation: string
): Effect.Effect<ReadonlyArray<DiscoveredSubsystem>, QueryError> =>
  Effect.map(
    readDiscoveryLog<IoError>({
      operation,
      resource: queue.resource,
      maxReadBytes: queue.maxDataBytes,
      read: (offsetBytes, lengthBytes) =>
        readLog(queue, operation, { logPage: log.LogPageId.discovery, nsid: 0, lengthBytes, offsetBytes })
    }),
    (entries) => entries.map(subsystemOf)
  )
