import { suite } from "./suites/nvmeUnanswered.ts"
import { libspdkNvmeToEmbedded } from "./support/nvmeEngines.ts"

libspdkNvmeToEmbedded("nvme unanswered", suite)
