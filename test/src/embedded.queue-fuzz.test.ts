import { suite } from "./suites/queueFuzz.ts"
import { embedded } from "./support/engines.ts"

embedded("queue fuzz", suite)
