import { suite } from "./suites/bdevModel.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev model", suite)
