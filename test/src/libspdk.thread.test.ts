import { suite } from "./suites/thread.ts"
import { libspdk } from "./support/engines.ts"

libspdk("thread", suite)
