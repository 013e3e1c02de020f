import { suite } from "./suites/nvmfRefusals.ts"
import { embedded } from "./support/engines.ts"

embedded("nvmf refusals", suite)
