import { suite } from "./suites/bdevSoak.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev soak", suite)
