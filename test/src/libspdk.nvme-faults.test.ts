import { suite } from "./suites/nvmeFaults.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme faults", suite)
