import { suite } from "./suites/nvmeFlush.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme flush", suite)
