import { suite } from "./suites/rpcAnswers.ts"
import { libspdk } from "./support/engines.ts"

libspdk("rpc answers", suite)
