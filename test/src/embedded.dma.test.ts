import { suite } from "./suites/dma.ts"
import { embedded } from "./support/engines.ts"

embedded("dma", suite)
