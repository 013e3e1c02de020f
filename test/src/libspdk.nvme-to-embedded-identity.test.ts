import { suite } from "./suites/nvmeIdentity.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme identity", suite)
