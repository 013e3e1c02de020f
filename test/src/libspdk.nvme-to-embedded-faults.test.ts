import { suite } from "./suites/nvmeFaults.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme faults", suite)
