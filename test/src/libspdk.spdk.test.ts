import { suite } from "./suites/spdk.ts"
import { libspdk } from "./support/engines.ts"

libspdk("spdk", suite)
