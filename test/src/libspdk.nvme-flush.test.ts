import { suite } from "./suites/nvmeFlush.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme flush", suite)
