/**
 * What happens between the first Connect and a controller that is ready: properties, enable, identify, features.
 */
import * as Effect from "effect/Effect"
import * as Outside from "../../engine/outside.ts"
import { Corrupted, IoFailed, SpdkError, TimedOut } from "../../../SpdkError.ts"
import { Cc, Csts, Property } from "../../nvme/wire/fabrics.ts"
import { FeatureId } from "../../nvme/wire/features.ts"
import { type AnaState, anaGroupBytes, anaHeaderBytes, decodeAnaLog, LogPageId } from "../../nvme/wire/logPages.ts"
import {
  Cns,
  decodeDescriptors,
  decodeNamespaceList,
  type IdentifyController,
  identifyController,
  identifyNamespace,
  namespaceFormat,
  namespaceListEntries
} from "../../nvme/wire/identify.ts"
import type { HostController } from "./controller.ts"
import { decodedOr } from "./hostErrors.ts"

export interface ControllerFacts {
  readonly cap: bigint
  readonly vs: number
  readonly cc: number
  readonly controllerId: number
  readonly ioQueues: number
  readonly maxQueueEntries: number
  readonly maxTransferBytes: number
  readonly inCapsuleBytes: number
  readonly identify: IdentifyController
}

/** When the controller has no bound of its own. */
const defaultTransferBytes = 1024 * 1024
/** CAP.TO of 0 is no time at all. */
const leastReadyMillis = 500
const pollMillis = 5
/** Notices: namespace attribute, firmware activation, ANA change; and of the discovery log. */
const wantedEvents = 0x8000_0b00

export const initialise = Effect.fnUntraced(function* (
  controller: HostController,
  operation: string,
  controllerId: number
): Effect.fn.Return<ControllerFacts, SpdkError> {
  const { admin, isDiscovery, resource, settings } = controller
  const cap = yield* admin.getProperty(operation, Property.Cap, true)
  const vs = Number(yield* admin.getProperty(operation, Property.Vs))
  const readyMillis = Math.max(leastReadyMillis, Number((cap >> 24n) & 0xffn) * 500)
  const before = Number(yield* admin.getProperty(operation, Property.Cc))
  if ((before & Cc.enable) !== 0) {
    yield* admin.setCc(operation, before & ~Cc.enable)
    yield* awaitReady(controller, operation, readyMillis, 0)
  }
  const cc = Cc.entrySizes | Cc.enable
  yield* admin.setCc(operation, cc)
  yield* awaitReady(controller, operation, readyMillis, Csts.ready)
  const identify = yield* decodedOr(
    operation,
    resource,
    identifyController.decode(yield* admin.identify(operation, Cns.controller, 0))
  )
  const minPageBytes = 4096 * 2 ** Number((cap >> 48n) & 0xfn)
  const exponent = identify.maxDataTransfer
  const maxTransferBytes =
    exponent === 0 || exponent > 20 ? defaultTransferBytes : Math.min(minPageBytes * 2 ** exponent, 2 ** 27)
  const { asyncEvents } = identify
  const offered =
    (asyncEvents.namespaceAttribute ? 0x100 : 0) +
    (asyncEvents.firmwareActivation ? 0x200 : 0) +
    (asyncEvents.anaChange ? 0x800 : 0) +
    (asyncEvents.discoveryLogChange ? 0x8000_0000 : 0)
  // Controllers that have no such feature refuse it, and send what they send.
  yield* Effect.ignore(admin.setFeature(operation, FeatureId.asyncEvents, ((offered & wantedEvents) | 0x1f) >>> 0))
  let ioQueues = 0
  if (!isDiscovery) {
    const wanted = Math.max(1, settings.ioQueues) - 1
    const { dword0 } = yield* admin.setFeature(operation, FeatureId.numberOfQueues, wanted * 0x1_0001)
    ioQueues = Math.min(settings.ioQueues, Math.min(dword0 & 0xffff, dword0 >>> 16) + 1)
  }
  const capsuleBytes = identify.ioCommandCapsuleSize * 16 - 64
  return {
    cap,
    vs,
    cc,
    controllerId,
    ioQueues,
    maxQueueEntries: Number(cap & 0xffffn) + 1,
    maxTransferBytes,
    // Data that starts somewhere else than behind the command has not been seen yet; R2T serves there too.
    inCapsuleBytes: identify.inCapsuleDataOffset === 0 ? Math.max(0, capsuleBytes) : 0,
    identify
  }
})

const awaitReady = Effect.fnUntraced(function* (
  { admin, resource }: HostController,
  operation: string,
  limitMillis: number,
  ready: number
): Effect.fn.Return<void, SpdkError> {
  for (let waited = 0; waited <= limitMillis; waited += pollMillis) {
    const csts = yield* admin.getCsts(operation)
    if ((csts & Csts.fatal) !== 0) {
      const detail = "the controller reports a fatal status"
      return yield* Effect.fail(new SpdkError({ reason: new IoFailed({ operation, resource, detail }) }))
    }
    if ((csts & Csts.ready) === ready) return
    yield* Outside.sleep(pollMillis)
  }
  return yield* Effect.fail(new SpdkError({ reason: new TimedOut({ operation, resource, limitMillis }) }))
})

/** More than this is taken for a lie: each is asked for, and remembered. */
const maxNamespaces = 2 ** 20

/** Pages of 1,024 ids, each in rising order and none above what the controller says is its highest, so that this ends. */
export const readActiveNamespaces = Effect.fnUntraced(function* (
  { admin, facts, resource }: HostController,
  operation: string
): Effect.fn.Return<ReadonlyArray<number>, SpdkError> {
  const all: Array<number> = []
  const highest = facts?.identify.maxNamespaceId ?? 0
  const lie = (rule: string) =>
    Effect.fail(
      new SpdkError({ reason: new Corrupted({ operation, resource, where: "the list of namespaces", rule }) })
    )
  for (;;) {
    const after = all.at(-1) ?? 0
    const page = yield* decodedOr(
      operation,
      resource,
      decodeNamespaceList(yield* admin.identify(operation, Cns.activeNamespaces, after))
    )
    all.push(...page.filter((id) => id > after))
    const last = all.at(-1) ?? 0
    if (last > highest) return yield* lie(`has the id ${last} of a controller whose highest is ${highest}`)
    if (all.length > maxNamespaces) return yield* lie(`has more than ${maxNamespaces} entries`)
    if (last === highest || page.length < namespaceListEntries || last === after) return all
  }
})

/** By ANA group. */
export const readAnaStates = Effect.fnUntraced(function* (
  { activeNamespaces, admin, facts, resource }: HostController,
  operation: string
): Effect.fn.Return<ReadonlyMap<number, AnaState>, SpdkError> {
  const groups = facts?.identify.anaGroups ?? 0
  const lengthBytes = anaHeaderBytes + groups * anaGroupBytes + activeNamespaces.length * 4
  const most = facts?.maxTransferBytes ?? lengthBytes
  const bytes = yield* admin.getLogPage(operation, LogPageId.ana, Math.min(lengthBytes, most))
  const log = yield* decodedOr(operation, resource, decodeAnaLog(bytes))
  return new Map(log.groups.map(({ groupId, state }) => [groupId, state]))
})

/** A namespace in the words of a disk. */
export interface NamespaceFacts {
  readonly nsid: number
  readonly blockSizeBytes: number
  readonly numBlocks: number
  readonly hasMetadata: boolean
  readonly optimalIoBoundaryBlocks: number
  readonly isShared: boolean
  readonly anaGroup: number
  readonly preferred: PreferredSizes | undefined
  /** As SPDK's bdevs have it: what is written as a whole, or not at all. */
  readonly physicalBlockSizeBytes: number
  readonly uuid: string | undefined
  readonly nguid: string | undefined
  readonly eui64: string | undefined
}

/** In blocks, as SPDK's bdevs have them. */
export interface PreferredSizes {
  readonly preferredWriteGranularity: number
  readonly preferredWriteAlignment: number
  readonly optimalWriteSize: number
  readonly preferredUnmapGranularity: number
  readonly preferredUnmapAlignment: number
}

/**
 * Whether it is the same volume in the same format. A namespace has the identifiers that it was made with for as long as it lives.
 * One that has none cannot be told from another.
 */
export const isSameNamespace = (a: NamespaceFacts, b: NamespaceFacts): boolean =>
  a.uuid === b.uuid &&
  a.nguid === b.nguid &&
  a.eui64 === b.eui64 &&
  a.blockSizeBytes === b.blockSizeBytes &&
  a.hasMetadata === b.hasMetadata

/** The first of them that there is. */
export const identityOf = ({ eui64, nguid, uuid }: NamespaceFacts): string =>
  uuid !== undefined
    ? `UUID ${uuid}`
    : nguid !== undefined
      ? `NGUID ${nguid}`
      : eui64 !== undefined
        ? `EUI64 ${eui64}`
        : "no identifier"

/** Undefined when there is none of this id. */
export const describeNamespace = Effect.fnUntraced(function* (
  { admin, facts, resource }: HostController,
  operation: string,
  nsid: number
): Effect.fn.Return<NamespaceFacts | undefined, SpdkError> {
  const identify = yield* decodedOr(
    operation,
    resource,
    identifyNamespace.decode(yield* admin.identify(operation, Cns.namespace, nsid))
  )
  if (identify.numBlocks === 0n) return undefined
  const format = yield* decodedOr(operation, resource, namespaceFormat(identify))
  const hasDescriptors = facts !== undefined && facts.vs >= 0x1_0300
  const descriptors = hasDescriptors
    ? yield* decodedOr(operation, resource, decodeDescriptors(yield* admin.identify(operation, Cns.descriptors, nsid)))
    : {}
  const preferredBlocks = identify.features.optimalPerformance ? identify.preferredWriteGranularity + 1 : 1
  const hasOwnAtomicity = identify.features.atomicWriteUnits && identify.atomicWritePowerFailBlocks > 0
  const atomicBlocks =
    identify.atomicBoundaryOffset === 0
      ? 1 + (hasOwnAtomicity ? identify.atomicWritePowerFailBlocks : (facts?.identify.atomicWritePowerFailBlocks ?? 0))
      : 1
  return {
    nsid,
    physicalBlockSizeBytes: format.blockSizeBytes * Math.min(preferredBlocks, atomicBlocks),
    blockSizeBytes: format.blockSizeBytes,
    numBlocks: format.numBlocks,
    hasMetadata: format.metadataBytes > 0,
    optimalIoBoundaryBlocks: identify.optimalIoBoundaryBlocks,
    isShared: identify.sharing.shared,
    anaGroup: identify.anaGroupId,
    preferred: identify.features.optimalPerformance
      ? {
          preferredWriteGranularity: identify.preferredWriteGranularity + 1,
          preferredWriteAlignment: identify.preferredWriteAlignment + 1,
          optimalWriteSize: identify.optimalWriteSize + 1,
          preferredUnmapGranularity: identify.preferredDeallocateGranularity + 1,
          preferredUnmapAlignment: identify.preferredDeallocateAlignment + 1
        }
      : undefined,
    uuid: descriptors.uuid,
    nguid: descriptors.nguid,
    eui64: descriptors.eui64
  }
})
