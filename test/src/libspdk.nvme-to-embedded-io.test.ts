import { suite } from "./suites/nvmeIo.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme io", suite)
