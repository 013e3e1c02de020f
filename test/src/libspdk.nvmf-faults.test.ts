import { suite } from "./suites/nvmfFaults.ts"
import { libspdk } from "./support/engines.ts"

libspdk("nvmf faults", suite)
