import { suite } from "./suites/nvme.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme", suite)
