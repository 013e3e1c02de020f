/**
 * Features: NVMe Base specification 2.1, section 5.1.25. Features of one dword are tables. The host identifier and the
 * timestamp are data.
 */
import * as Result from "effect/Result"
import {
  array,
  type Field,
  flags,
  type Malformed,
  malformed,
  ranges,
  type RangesInput,
  type Ranges,
  type RangeNames,
  u16,
  u32,
  viewOf
} from "./struct.ts"

/** Feature identifiers (FID). */
export const FeatureId = {
  arbitration: 0x01,
  powerManagement: 0x02,
  lbaRangeType: 0x03,
  temperatureThreshold: 0x04,
  errorRecovery: 0x05,
  volatileWriteCache: 0x06,
  numberOfQueues: 0x07,
  interruptCoalescing: 0x08,
  interruptVector: 0x09,
  writeAtomicity: 0x0a,
  asyncEvents: 0x0b,
  autonomousPowerStates: 0x0c,
  hostMemoryBuffer: 0x0d,
  timestamp: 0x0e,
  keepAlive: 0x0f,
  thermalManagement: 0x10,
  hostBehavior: 0x16,
  softwareProgress: 0x80,
  hostIdentifier: 0x81,
  reservationNotifications: 0x82,
  reservationPersistence: 0x83,
  writeProtection: 0x84
} as const

/** SEL of Get Features. */
export const FeatureSelect = { current: 0, default: 1, saved: 2, supported: 3 } as const

const word = <A, In>(field: Field<A, In>) => ({
  decode: (dword: number): A => {
    const view = new DataView(new ArrayBuffer(4))
    view.setUint32(0, dword, true)
    return field.get(view, 0)
  },
  encode: (value: In): number => {
    const view = new DataView(new ArrayBuffer(4))
    field.set(view, 0, value)
    return view.getUint32(0, true)
  }
})

const numbers = <const B extends RangeNames>(names: B): WordOf<Ranges<B>, RangesInput<B>> => word(ranges(u32(0), names))

interface WordOf<A, In> {
  readonly decode: (dword: number) => A
  /** Throws a RangeError when a value does not fit. */
  readonly encode: (value: In) => number
}

/** The value of dword 11 of Set Features, and of dword 0 in the completion of Get Features. */
export const featureWords = {
  /** `burst` is a power of two, and 7 means no limit. Weights count from 0. */
  arbitration: numbers({ burst: [0, 3], lowWeight: [8, 8], mediumWeight: [16, 8], highWeight: [24, 8] }),
  powerManagement: numbers({ powerState: [0, 5], workloadHint: [5, 3] }),
  /** `sensor` 0 is the composite temperature. `under` 1 is the lower threshold. */
  temperatureThreshold: numbers({ kelvin: [0, 16], sensor: [16, 4], under: [20, 2] }),
  errorRecovery: numbers({ timeLimit100Millis: [0, 16], deallocatedError: [16, 1] }),
  volatileWriteCache: word(flags(u32(0), { enabled: 0 })),
  /** Counted from 0, as on the wire. */
  numberOfQueues: numbers({ submission: [0, 16], completion: [16, 16] }),
  interruptCoalescing: numbers({ threshold: [0, 8], time100Micros: [8, 8] }),
  writeAtomicity: word(flags(u32(0), { disableNormal: 0 })),
  asyncEvents: word(
    flags(u32(0), {
      spareBelowThreshold: 0,
      temperature: 1,
      reliabilityDegraded: 2,
      readOnly: 3,
      volatileMemoryBackupFailed: 4,
      namespaceAttribute: 8,
      firmwareActivation: 9,
      telemetryLog: 10,
      anaChange: 11,
      predictableLatency: 12,
      lbaStatus: 13,
      enduranceGroup: 14,
      discoveryLogChange: 31
    })
  ),
  keepAlive: numbers({ millis: [0, 32] }),
  reservationPersistence: word(flags(u32(0), { persistThroughPowerLoss: 0 }))
} as const

const two = array(2, u16(0))

/** A timestamp of the controller, 8 bytes. */
export interface Timestamp {
  /** Since 1970, or since the last reset when `fromHost` is false. */
  readonly millis: number
  readonly fromHost: boolean
  /** Whether the clock may have stopped since. */
  readonly mayHaveStopped: boolean
}

export const timestampBytes = 8

export const decodeTimestamp = (bytes: Uint8Array): Result.Result<Timestamp, Malformed> => {
  if (bytes.byteLength < timestampBytes) return malformed("the timestamp", `has ${bytes.byteLength} bytes instead of 8`)
  const view = viewOf(bytes)
  const attributes = view.getUint8(6)
  return Result.succeed({
    millis: view.getUint32(0, true) + view.getUint16(4, true) * 2 ** 32,
    fromHost: ((attributes >> 1) & 0x7) === 1,
    mayHaveStopped: (attributes & 1) === 1
  })
}

export const encodeTimestamp = (millis: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(timestampBytes)
  const view = viewOf(bytes)
  two.set(view, 0, [millis % 2 ** 16, Math.floor(millis / 2 ** 16) % 2 ** 16])
  view.setUint16(4, Math.floor(millis / 2 ** 32), true)
  return bytes
}
