import { suite } from "./suites/nvmfTarget.ts"
import { embedded } from "./support/engines.ts"

embedded("nvmf target", suite)
