import { suite } from "./suites/bdevBadInput.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev bad input", suite)
