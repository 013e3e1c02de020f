import { suite } from "./suites/nvmeBdev.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme bdev", suite)
