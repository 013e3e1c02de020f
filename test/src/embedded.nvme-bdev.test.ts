import { suite } from "./suites/nvmeBdev.ts"
import { embedded } from "./support/engines.ts"

embedded("nvme bdevs", suite)
