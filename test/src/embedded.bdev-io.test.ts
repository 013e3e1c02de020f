import { suite } from "./suites/bdevIo.ts"
import { embedded } from "./support/engines.ts"

embedded("bdev io", suite)
