import { suite } from "./suites/nvmeIdentity.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme identity", suite)
