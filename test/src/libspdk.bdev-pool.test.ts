import { poolConfig, suite } from "./suites/bdevPool.ts"
import { libspdk } from "./support/engines.ts"

libspdk("bdev pool", suite, { config: poolConfig })
