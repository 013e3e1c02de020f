import { suite } from "./suites/nvmeIo.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme io", suite)
