import { contract } from "./support/harness.ts"
import { libspdk, long } from "./support/engines.ts"
import { sweep } from "./suites/blobSweep.ts"

libspdk("blob sweep", (name, layer) =>
  contract(name, layer, (check) =>
    check("power is lost at the N-th write: both drivers load old or new", () => sweep, {
      timeoutMillis: long ? 1_800_000 : 60_000
    })
  )
)
