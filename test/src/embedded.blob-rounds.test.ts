import { contract } from "./support/harness.ts"
import { embedded, long } from "./support/engines.ts"
import { killedRounds } from "./suites/blobRounds.ts"

embedded("blob rounds", (name, layer) =>
  contract(name, layer, (check) =>
    check("what was synced survives SIGKILL, portable", () =>
      killedRounds([{ engine: "embedded", driver: "portable" }], "portable", long ? 300 : 6)
    )
  )
)
