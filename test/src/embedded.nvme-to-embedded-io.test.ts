import { suite } from "./suites/nvmeIo.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme io", suite)
