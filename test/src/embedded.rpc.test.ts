import { suite } from "./suites/rpc.ts"
import { embedded } from "./support/engines.ts"

embedded("rpc", suite)
