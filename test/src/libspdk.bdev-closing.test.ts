import { suite } from "./suites/bdevClosing.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev closing", suite)
