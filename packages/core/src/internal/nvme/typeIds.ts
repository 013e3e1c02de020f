export const NvmeControllerTypeId = "~@effect-spdk/core/NvmeController"
export const NvmeNamespaceTypeId = "~@effect-spdk/core/NvmeNamespace"
