import { suite } from "./suites/bdevInterruption.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev interruption", suite)
