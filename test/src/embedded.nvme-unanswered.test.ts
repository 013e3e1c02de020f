import { suite } from "./suites/nvmeUnanswered.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme unanswered", suite)
