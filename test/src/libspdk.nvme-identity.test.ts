import { suite } from "./suites/nvmeIdentity.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme identity", suite)
