import { suite } from "./suites/nvmeUnanswered.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme unanswered", suite)
