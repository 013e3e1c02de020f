import { suite } from "./suites/keyValue.ts"
import { withDriver } from "./support/blobs.ts"
import { libspdk } from "./support/engines.ts"

libspdk("key-value store", withDriver("libspdk", { libspdk: suite }))
libspdk("key-value store", withDriver("portable", { portable: suite }))
