import { suite } from "./suites/bdevOptions.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev options", suite)
