import { suite } from "./suites/bdevOptions.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev options", suite)
