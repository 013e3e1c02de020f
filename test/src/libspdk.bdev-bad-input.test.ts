import { suite } from "./suites/bdevBadInput.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev bad input", suite)
