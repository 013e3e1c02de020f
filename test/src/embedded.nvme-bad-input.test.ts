import { suite } from "./suites/nvmeBadInput.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme bad input", suite)
