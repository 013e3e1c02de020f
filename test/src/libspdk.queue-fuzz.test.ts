import { suite } from "./suites/queueFuzz.ts"
import { libspdk } from "./support/engines.ts"

libspdk("queue fuzz", suite)
