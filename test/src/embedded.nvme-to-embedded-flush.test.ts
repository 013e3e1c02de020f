import { suite } from "./suites/nvmeFlush.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme flush", suite)
