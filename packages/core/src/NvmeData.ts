/**
 * What NVMe controllers and namespaces tell of themselves, decoded: identify data, log pages, features, events. The names of the
 * specifications stand beside the fields. Import all of this from `Nvme`.
 *
 * @since 0.1.0
 */
import type * as asyncEvent from "./internal/nvme/asyncEvent.ts"
import type * as features from "./internal/nvme/features.ts"
import type * as identify from "./internal/nvme/identify.ts"
import type * as logPages from "./internal/nvme/logPages.ts"
import type { TransportId } from "./NvmeTransportId.ts"

/** Identify Controller (CNS 01h). @since 0.1.0 @category models */
export type IdentifyController = identify.IdentifyController

/** Identify Namespace of the NVM command set (CNS 00h). @since 0.1.0 @category models */
export type IdentifyNamespace = identify.IdentifyNamespace

/** What identifies a namespace for good (CNS 03h). @since 0.1.0 @category models */
export interface NamespaceDescriptors extends identify.NamespaceDescriptors {}

/** An entry of the error log (LID 01h). @since 0.1.0 @category models */
export type ErrorLogEntry = logPages.ErrorLogEntry

/** SMART / health information (LID 02h). @since 0.1.0 @category models */
export type HealthLog = logPages.HealthLog

/** Firmware slots (LID 03h). @since 0.1.0 @category models */
export type FirmwareLog = logPages.FirmwareLog

/** Namespaces that changed since the log was read last (LID 04h). @since 0.1.0 @category models */
export interface ChangedNamespaces extends logPages.ChangedNamespaces {}

/** Commands supported and their effects (LID 05h). @since 0.1.0 @category models */
export type CommandEffectsLog = logPages.CommandEffectsLog

/** Asymmetric Namespace Access (LID 0Ch). @since 0.1.0 @category models */
export interface AnaLog extends logPages.AnaLog {}

/** @since 0.1.0 @category models */
export interface AnaGroup extends logPages.AnaGroup {}

/** @since 0.1.0 @category models */
export type AnaState = logPages.AnaState

/** An entry of the discovery log (LID 70h), as it is on the wire. @since 0.1.0 @category models */
export type DiscoveryEntry = logPages.DiscoveryEntry

/** The features that live in one dword, by name. @since 0.1.0 @category models */
export type FeatureName = keyof typeof features.featureWords

/** What a feature is read as. @since 0.1.0 @category models */
export type FeatureValue<Name extends FeatureName> = ReturnType<(typeof features.featureWords)[Name]["decode"]>

/** What a feature is set to; what is left out is 0 or false. @since 0.1.0 @category models */
export type FeatureInput<Name extends FeatureName> = Parameters<(typeof features.featureWords)[Name]["encode"]>[0]

/** @since 0.1.0 @category models */
export interface Timestamp extends features.Timestamp {}

/** What a controller reports by itself (Asynchronous Event Request). @since 0.1.0 @category models */
export type AsyncEvent = asyncEvent.AsyncEvent

/** What a discovery controller knows of one way to one subsystem. @since 0.1.0 @category models */
export interface DiscoveredSubsystem {
  /** Undefined when the way is one that SPDK does not have: loopback, Fibre Channel. */
  readonly transportId: TransportId | undefined
  /** A subsystem with namespaces, another discovery service, or this very one. */
  readonly type: "nvme" | "referral" | "discovery" | "other"
  readonly subnqn: string
  readonly entry: DiscoveryEntry
}
