/**
 * NVMe status codes, from the Base, NVM Command Set and Fabrics specifications, and the status field of a completion.
 * A status is one number: SCT << 8 | SC, as `Sct` and the tables below have it, with `dnr` where it is no use to try again.
 */

const generic = (sc: number): number => sc
const commandSpecific = (sc: number): number => 0x100 | sc
const media = (sc: number): number => 0x200 | sc
const path = (sc: number): number => 0x300 | sc

export const Status = {
  Success: 0,
  InvalidOpcode: generic(0x01),
  InvalidField: generic(0x02),
  CommandIdConflict: generic(0x03),
  DataTransferError: generic(0x04),
  InternalDeviceError: generic(0x06),
  AbortedByRequest: generic(0x07),
  AbortedSqDeletion: generic(0x08),
  AbortedFailedFused: generic(0x09),
  AbortedMissingFused: generic(0x0a),
  InvalidNamespaceOrFormat: generic(0x0b),
  CommandSequenceError: generic(0x0c),
  InvalidSglSegmentDescriptor: generic(0x0d),
  InvalidSglCount: generic(0x0e),
  DataSglLengthInvalid: generic(0x0f),
  SglDescriptorTypeInvalid: generic(0x11),
  SglOffsetInvalid: generic(0x16),
  HostIdInconsistent: generic(0x18),
  KeepAliveExpired: generic(0x19),
  KeepAliveInvalid: generic(0x1a),
  NamespaceWriteProtected: generic(0x20),
  CommandInterrupted: generic(0x21),
  TransientTransportError: generic(0x22),
  LbaOutOfRange: generic(0x80),
  CapacityExceeded: generic(0x81),
  NamespaceNotReady: generic(0x82),
  ReservationConflict: generic(0x83),
  InvalidQueueId: commandSpecific(0x01),
  InvalidQueueSize: commandSpecific(0x02),
  AbortLimitExceeded: commandSpecific(0x03),
  AsyncEventLimitExceeded: commandSpecific(0x05),
  InvalidLogPage: commandSpecific(0x09),
  FeatureNotSaveable: commandSpecific(0x0d),
  FeatureNotChangeable: commandSpecific(0x0e),
  FeatureNotNamespaceSpecific: commandSpecific(0x0f),
  ConnectIncompatibleFormat: commandSpecific(0x80),
  ConnectControllerBusy: commandSpecific(0x81),
  ConnectInvalidParameters: commandSpecific(0x82),
  ConnectRestartDiscovery: commandSpecific(0x83),
  ConnectInvalidHost: commandSpecific(0x84),
  InvalidQueueType: commandSpecific(0x85),
  DiscoverRestart: commandSpecific(0x90),
  AuthenticationRequired: commandSpecific(0x91),
  WriteFault: media(0x80),
  UnrecoveredReadError: media(0x81),
  CompareFailure: media(0x85),
  InternalPathError: path(0x00),
  AnaPersistentLoss: path(0x01),
  AnaInaccessible: path(0x02),
  AnaTransition: path(0x03),
  AbortedByHost: path(0x71)
} as const

/** Do not retry. */
export const dnr = 0x4000

export const sctOf = (status: number): number => (status >>> 8) & 0x7
export const scOf = (status: number): number => status & 0xff
export const isDnr = (status: number): boolean => (status & dnr) !== 0

/** The 16 bits at the end of a completion, with phase tag 0, which fabrics do not use. */
export const statusField = (status: number): number => (status << 1) & 0xfffe

/** A status out of the 16 bits at the end of a completion. CRD and More are left out. */
export const statusOfField = (field: number): number => (field >>> 1) & (dnr | 0x7ff)

/** What the embedded engine's `IoStatus.nvme` holds: 0 for no status at all. */
export const statusOfWord = (word: number): number | undefined => (word === 0 ? undefined : word & 0x7ff)
export const wordOfStatus = (status: number): number => 0x10000 | (status & 0x7ff)
