import { suite } from "./suites/nvmeFaults.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme faults", suite)
