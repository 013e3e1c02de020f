import { suite } from "./suites/nvme.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme", suite)
