import { socketPath, suite } from "./suites/socket.ts"
import { embedded } from "./support/engines.ts"

embedded("rpc socket", suite, { rpcSocket: socketPath })
