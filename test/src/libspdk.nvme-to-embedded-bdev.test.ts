import { suite } from "./suites/nvmeBdevRpc.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme bdev", suite)
