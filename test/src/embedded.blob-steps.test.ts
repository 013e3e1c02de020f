import { suite } from "./suites/blobSteps.ts"
import { withDriver } from "./support/blobs.ts"
import { embedded } from "./support/engines.ts"

embedded("interrupted steps", withDriver("portable", { portable: suite }))
