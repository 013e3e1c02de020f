import { suite } from "./suites/bdevLifecycle.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev lifecycle", suite)
