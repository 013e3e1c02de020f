import { suite } from "./suites/spdk.ts"
import { embedded } from "./support/engines.ts"

embedded("spdk", suite)
