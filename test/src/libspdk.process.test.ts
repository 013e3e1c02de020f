import { suite } from "./suites/process.ts"
import { libspdk } from "./support/engines.ts"

libspdk("process", (name, _layer, capabilities) => suite(name, capabilities))
