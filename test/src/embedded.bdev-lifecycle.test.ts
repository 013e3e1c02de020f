import { suite } from "./suites/bdevLifecycle.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev lifecycle", suite)
