import { suite } from "./suites/nvmfFaults.ts"
import { embedded } from "./support/engines.ts"

embedded("nvmf faults", suite)
