import { suite } from "./suites/nvmeBdevRpc.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme bdev", suite)
