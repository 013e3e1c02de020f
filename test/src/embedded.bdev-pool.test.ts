import { suite } from "./suites/bdevPool.ts"
import { embedded } from "./support/engines.ts"

// Without the configuration of the other engine: there is no pool to make smaller.
embedded("bdev pool", suite)
