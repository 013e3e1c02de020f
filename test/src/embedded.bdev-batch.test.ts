import { suite } from "./suites/bdevBatch.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev batch", suite)
