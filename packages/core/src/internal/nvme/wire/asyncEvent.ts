/**
 * Dword 0 of the completion of an asynchronous event request: NVMe Base specification 2.1, section 5.1.2.
 */

/** An event that a controller reports. Numbers without a name here are `Other`. */
export type AsyncEvent =
  /** One or more namespaces were added, removed or changed; the log of changed namespaces says which. */
  | { readonly _tag: "NamespaceAttributeChanged" }
  | { readonly _tag: "FirmwareActivationStarting" }
  | { readonly _tag: "TelemetryLogChanged" }
  | { readonly _tag: "AnaChanged" }
  | { readonly _tag: "DiscoveryLogChanged" }
  /** The error log has a new entry; `info` is the specification's number. */
  | { readonly _tag: "ErrorReported"; readonly info: number }
  | { readonly _tag: "HealthWarning"; readonly warning: "reliability" | "temperature" | "spare" | "other" }
  | { readonly _tag: "ReservationLogAvailable" }
  | { readonly _tag: "SanitizeCompleted" }
  | { readonly _tag: "Other"; readonly type: number; readonly info: number; readonly logPage: number }

export const AsyncEventType = { error: 0, health: 1, notice: 2, immediate: 3, io: 6, vendor: 7 } as const
export const AsyncNotice = {
  namespaceAttributeChanged: 0x00,
  firmwareActivationStarting: 0x01,
  telemetryLogChanged: 0x02,
  anaChanged: 0x03,
  discoveryLogChanged: 0xf0
} as const

const notices = new Map<number, AsyncEvent>([
  [AsyncNotice.namespaceAttributeChanged, { _tag: "NamespaceAttributeChanged" }],
  [AsyncNotice.firmwareActivationStarting, { _tag: "FirmwareActivationStarting" }],
  [AsyncNotice.telemetryLogChanged, { _tag: "TelemetryLogChanged" }],
  [AsyncNotice.anaChanged, { _tag: "AnaChanged" }],
  [AsyncNotice.discoveryLogChanged, { _tag: "DiscoveryLogChanged" }]
])
const ioEvents = new Map<number, AsyncEvent>([
  [0, { _tag: "ReservationLogAvailable" }],
  [1, { _tag: "SanitizeCompleted" }]
])
const warnings = ["reliability", "temperature", "spare"] as const

export const encodeAsyncEvent = (type: number, info: number, logPage: number): number =>
  type + (info << 8) + (logPage << 16)

export const decodeAsyncEvent = (dword0: number): AsyncEvent => {
  const type = dword0 & 0x7
  const info = (dword0 >>> 8) & 0xff
  const other: AsyncEvent = { _tag: "Other", type, info, logPage: (dword0 >>> 16) & 0xff }
  switch (type) {
    case AsyncEventType.error:
      return { _tag: "ErrorReported", info }
    case AsyncEventType.health:
      return { _tag: "HealthWarning", warning: warnings[info] ?? "other" }
    case AsyncEventType.notice:
      return notices.get(info) ?? other
    case AsyncEventType.io:
      return ioEvents.get(info) ?? other
    default:
      return other
  }
}
