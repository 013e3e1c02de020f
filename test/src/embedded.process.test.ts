import { suite } from "./suites/process.ts"
import { embedded } from "./support/engines.ts"

embedded("process", (name, _layer, capabilities) => suite(name, capabilities))
