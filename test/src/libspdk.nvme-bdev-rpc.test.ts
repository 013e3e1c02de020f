import { suite } from "./suites/nvmeBdevRpc.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme bdev", suite)
