import { suite } from "./suites/bdevInterruption.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev interruption", suite)
