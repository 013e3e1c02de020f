import { suite } from "./suites/nvmeBdev.ts"
import { libspdk } from "./support/engines.ts"

libspdk("nvme bdevs", suite)
