import { suite } from "./suites/nvmeFlush.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme flush", suite)
