import { suite } from "./suites/nvmeFaults.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme faults", suite)
