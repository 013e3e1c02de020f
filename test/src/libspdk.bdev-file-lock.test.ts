import { suite } from "./suites/bdevFileLock.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev file lock", suite)
