import { suite } from "./suites/bdevModel.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev model", suite)
