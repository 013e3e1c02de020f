import { socketPath, suite } from "./suites/nvmfTools.ts"
import { libspdk } from "./support/engines.ts"

libspdk("nvmf tools", suite, { rpcSocket: socketPath })
