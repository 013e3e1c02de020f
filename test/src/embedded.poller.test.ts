import { suite } from "./suites/poller.ts"
import { embedded } from "./support/engines.ts"

embedded("poller", suite)
