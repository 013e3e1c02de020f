import { suite } from "./suites/bdevStream.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev stream", suite)
