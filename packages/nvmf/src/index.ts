/**
 * SPDK's NVMe over Fabrics target: scoped subsystems, namespaces, listeners and hosts, by RPC.
 *
 * @since 0.1.0
 */
export * as NvmfTarget from "./NvmfTarget.ts"
