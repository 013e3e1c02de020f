import { suite } from "./suites/bdevSoak.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev soak", suite)
