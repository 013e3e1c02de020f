import { suite } from "./suites/dma.ts"
import { libspdk } from "./support/engines.ts"

libspdk("dma", suite)
