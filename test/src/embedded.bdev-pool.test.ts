import { poolConfig, suite } from "./suites/bdevPool.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev pool", suite, { config: poolConfig })
