import { suite } from "./suites/thread.ts"
import { embedded } from "./support/engines.ts"

embedded("thread", suite)
