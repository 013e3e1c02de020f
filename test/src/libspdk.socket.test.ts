import { socketPath, suite } from "./suites/socket.ts"
import { libspdk } from "./support/engines.ts"

libspdk("rpc socket", suite, { rpcSocket: socketPath })
