import { suite } from "./suites/nvme.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme", suite)
