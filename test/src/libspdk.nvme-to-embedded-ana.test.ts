import { suite } from "./suites/nvmeAna.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme ana", suite)
