import { suite } from "./suites/rpc.ts"
import { libspdk } from "./support/engines.ts"

libspdk("rpc", suite)
