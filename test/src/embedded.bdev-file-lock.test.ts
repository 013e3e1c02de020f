import { suite } from "./suites/bdevFileLock.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev file lock", suite)
