/**
 * SPDK as Effect: engines, threads, pollers, DMA memory, block devices and JSON-RPC.
 *
 * @since 0.1.0
 */
export * as Bdev from "./Bdev.ts"
export * as CpuSet from "./CpuSet.ts"
export * as DmaBuffer from "./DmaBuffer.ts"
export * as Keyring from "./Keyring.ts"
export * as Nvme from "./Nvme.ts"
export * as NvmeBdev from "./NvmeBdev.ts"
export * as NvmeNqn from "./NvmeNqn.ts"
export * as NvmeTransportId from "./NvmeTransportId.ts"
export * as Poller from "./Poller.ts"
export * as Rpc from "./Rpc.ts"
export * as RpcResults from "./RpcResults.ts"
export * as SimulatedDisk from "./SimulatedDisk.ts"
export type * as SimulatedNetwork from "./SimulatedNetwork.ts"
export * as Simulation from "./Simulation.ts"
export * as SimulationModel from "./SimulationModel.ts"
export * as Spdk from "./Spdk.ts"
export * as SpdkError from "./SpdkError.ts"
export * as SpdkOptions from "./SpdkOptions.ts"
export * as SpdkThread from "./SpdkThread.ts"
