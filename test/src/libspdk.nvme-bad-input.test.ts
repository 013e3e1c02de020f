import { suite } from "./suites/nvmeBadInput.ts"
import { libspdkNvme } from "./support/nvmeEngines.ts"

libspdkNvme("nvme bad input", suite)
