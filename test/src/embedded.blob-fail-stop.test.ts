import { suite } from "./suites/blobFailStop.ts"
import { withDriver } from "./support/blobs.ts"
import { embedded } from "./support/engines.ts"

embedded("fail-stop", withDriver("portable", { portable: suite }))
