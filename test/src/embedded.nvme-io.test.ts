import { suite } from "./suites/nvmeIo.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme io", suite)
