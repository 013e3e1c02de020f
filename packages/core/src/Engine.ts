/**
 * Parts of the engines for packages that add resources, for example `@effect-spdk/blobstore`. Programs do not need this
 * module. It changes with the engines and checks less than the public modules.
 *
 * @since 0.1.0
 */
export { engineOf } from "./internal/bdevHandle.ts"
export { bytesOf } from "./internal/byteSize.ts"
export type * from "./internal/engine.ts"
export { EngineService } from "./internal/engineService.ts"
export { Host } from "./internal/host.ts"
export { discoveryNqn, isUuid, nqnRule } from "./internal/nvme/nqn.ts"
export { type FieldIssue, resolveTransportId } from "./internal/nvme/transportId.ts"
export { numbersOf } from "./internal/libspdk/blobstores.ts"
export { type IoMap, mapped, type MappedIo } from "./internal/mappedIo.ts"
export * as Outside from "./internal/outside.ts"
export { openBlocks, type OpenBlocks, type OpenBlocksOptions } from "./internal/openBlocks.ts"
export { pollChanges, type PollChangesOptions } from "./internal/pollChanges.ts"
export { type RangeTarget, sinkOf, streamOf } from "./internal/rangeStream.ts"
export { withinLimit, withinLimitByRpc } from "./internal/release.ts"
export { callDecoded } from "./internal/rpcDecoded.ts"
