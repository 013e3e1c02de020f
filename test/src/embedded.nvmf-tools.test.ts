import { socketPath, suite } from "./suites/nvmfTools.ts"
import { embedded } from "./support/engines.ts"

embedded("nvmf tools", suite, { rpcSocket: socketPath })
