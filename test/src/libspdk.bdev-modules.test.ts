import { suite } from "./suites/bdevModules.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev modules", suite)
