import { suite } from "./suites/blobFailStop.ts"
import { withDriver } from "./support/blobs.ts"
import { libspdk } from "./support/engines.ts"

libspdk("fail-stop", withDriver("libspdk", { libspdk: suite }))
libspdk("fail-stop", withDriver("portable", { portable: suite }))
