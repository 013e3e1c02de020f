import { suite } from "./suites/bdevStream.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev stream", suite)
