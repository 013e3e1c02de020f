import { suite } from "./suites/poller.ts"
import { libspdk } from "./support/engines.ts"

libspdk("poller", suite)
