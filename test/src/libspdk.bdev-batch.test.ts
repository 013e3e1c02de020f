import { suite } from "./suites/bdevBatch.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev batch", suite)
