import { suite } from "./suites/nvmeAna.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme ana", suite)
