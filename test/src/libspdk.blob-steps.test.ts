import { suite } from "./suites/blobSteps.ts"
import { withDriver } from "./support/blobs.ts"
import { libspdk } from "./support/engines.ts"

libspdk("interrupted steps", withDriver("libspdk", { libspdk: suite }))
libspdk("interrupted steps", withDriver("portable", { portable: suite }))
