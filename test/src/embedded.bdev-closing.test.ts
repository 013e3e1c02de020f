import { suite } from "./suites/bdevClosing.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev closing", suite)
