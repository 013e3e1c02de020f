import { suite } from "./suites/nvmeAna.ts"
import { embeddedNvme } from "./support/nvmeEngines.ts"

embeddedNvme("nvme ana", suite)
