import { suite } from "./suites/keyValue.ts"
import { withDriver } from "./support/blobs.ts"
import { embedded } from "./support/engines.ts"

embedded("key-value store", withDriver("portable", { portable: suite }))
