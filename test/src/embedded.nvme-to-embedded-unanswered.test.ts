import { suite } from "./suites/nvmeUnanswered.ts"
import { embeddedNvmeToEmbedded } from "./support/nvmeEngines.ts"

embeddedNvmeToEmbedded("nvme unanswered", suite)
