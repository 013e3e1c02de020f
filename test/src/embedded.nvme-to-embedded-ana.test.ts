import { suite } from "./suites/nvmeAna.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme ana", suite)
