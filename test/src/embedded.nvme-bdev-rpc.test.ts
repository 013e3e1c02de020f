import { suite } from "./suites/nvmeBdevRpc.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme bdev", suite)
