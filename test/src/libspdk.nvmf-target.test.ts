import { suite } from "./suites/nvmfTarget.ts"
import { libspdk } from "./support/engines.ts"

libspdk("nvmf target", suite)
