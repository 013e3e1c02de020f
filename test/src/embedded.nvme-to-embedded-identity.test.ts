import { suite } from "./suites/nvmeIdentity.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme identity", suite)
