import { suite } from "./suites/nvmfRefusals.ts"
import { libspdk } from "./support/engines.ts"

libspdk("nvmf refusals", suite)
