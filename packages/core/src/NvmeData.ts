/**
 * The decoded data of NVMe controllers and namespaces: identify data, log pages, features and events. Each field's
 * documentation gives its name in the specification. Import these names from `Nvme`.
 *
 * @since 0.1.0
 */
import type * as asyncEvent from "./internal/nvme/wire/asyncEvent.ts"
import type * as features from "./internal/nvme/wire/features.ts"
import type * as identify from "./internal/nvme/wire/identify.ts"
import type * as logPages from "./internal/nvme/wire/logPages.ts"
import type { TransportId } from "./NvmeTransportId.ts"

/** Identify Controller (CNS 01h). @since 0.1.0 @category models */
export type IdentifyController = identify.IdentifyController

/** Identify Namespace of the NVM command set (CNS 00h). @since 0.1.0 @category models */
export type IdentifyNamespace = identify.IdentifyNamespace

/** The permanent identifiers of a namespace (CNS 03h). @since 0.1.0 @category models */
export interface NamespaceDescriptors extends identify.NamespaceDescriptors {}

/** An entry of the error log (LID 01h). @since 0.1.0 @category models */
export type ErrorLogEntry = logPages.ErrorLogEntry

/** SMART / health information (LID 02h). @since 0.1.0 @category models */
export type HealthLog = logPages.HealthLog

/** Firmware slots (LID 03h). @since 0.1.0 @category models */
export type FirmwareLog = logPages.FirmwareLog

/** Namespaces that changed since the last read of the log (LID 04h). @since 0.1.0 @category models */
export interface ChangedNamespaces extends logPages.ChangedNamespaces {}

/** Commands supported and their effects (LID 05h). @since 0.1.0 @category models */
export type CommandEffectsLog = logPages.CommandEffectsLog

/** Asymmetric Namespace Access (LID 0Ch). @since 0.1.0 @category models */
export interface AnaLog extends logPages.AnaLog {}

/** @since 0.1.0 @category models */
export interface AnaGroup extends logPages.AnaGroup {}

/** @since 0.1.0 @category models */
export type AnaState = logPages.AnaState

/** An entry of the discovery log (LID 70h), as sent by the controller. @since 0.1.0 @category models */
export type DiscoveryEntry = logPages.DiscoveryEntry

/** The names of the features that fit in one dword. @since 0.1.0 @category models */
export type FeatureName = keyof typeof features.featureWords

/** The decoded value of a feature. @since 0.1.0 @category models */
export type FeatureValue<Name extends FeatureName> = ReturnType<(typeof features.featureWords)[Name]["decode"]>

/** The value to set a feature to. An absent field is 0 or false. @since 0.1.0 @category models */
export type FeatureInput<Name extends FeatureName> = Parameters<(typeof features.featureWords)[Name]["encode"]>[0]

/** @since 0.1.0 @category models */
export interface Timestamp extends features.Timestamp {}

/** An event that a controller reports (Asynchronous Event Request). @since 0.1.0 @category models */
export type AsyncEvent = asyncEvent.AsyncEvent

/** An entry of a discovery controller: one address of one subsystem. @since 0.1.0 @category models */
export interface DiscoveredSubsystem {
  /** `undefined` when SPDK does not have the transport: loopback, Fibre Channel. */
  readonly transportId: TransportId | undefined
  /**
   * `nvme`: a subsystem with namespaces. `referral`: another discovery service. `discovery`: this discovery service
   * itself.
   */
  readonly type: "nvme" | "referral" | "discovery" | "other"
  readonly subnqn: string
  readonly entry: DiscoveryEntry
}
