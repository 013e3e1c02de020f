import { suite } from "./suites/bdevIo.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev io", suite)
