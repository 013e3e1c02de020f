import { suite } from "./suites/bdevModules.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev modules", suite)
