/**
 * Parts of the engines for packages that add resources, for example `@effect-spdk/blobstore`. Programs do not need this
 * module. It changes with the engines and checks less than the public modules.
 *
 * @since 0.1.0
 */
export { engineOf } from "./internal/io/bdevHandle.ts"
export { bytesOf } from "./internal/common/byteSize.ts"
export type * from "./internal/engine/engine.ts"
export { EngineService } from "./internal/engine/service.ts"
export { Host } from "./internal/engine/host.ts"
export { discoveryNqn, isUuid, nqnRule } from "./internal/nvme/wire/nqn.ts"
export { type FieldIssue, resolveTransportId } from "./internal/nvme/transportId.ts"
export { numbersOf } from "./internal/libspdk/blobstores.ts"
export { type IoMap, mapped, type MappedIo } from "./internal/io/mappedIo.ts"
export * as Outside from "./internal/engine/outside.ts"
export { openBlocks, type OpenBlocks, type OpenBlocksOptions } from "./internal/io/openBlocks.ts"
export { pollChanges, type PollChangesOptions } from "./internal/rpc/pollChanges.ts"
export { type RangeTarget, sinkOf, streamOf } from "./internal/io/rangeStream.ts"
export { withinLimit, withinLimitByRpc } from "./internal/common/release.ts"
export { callDecoded } from "./internal/rpc/decoded.ts"
