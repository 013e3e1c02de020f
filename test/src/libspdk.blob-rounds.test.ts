import { contract } from "./support/harness.ts"
import { libspdk, long } from "./support/engines.ts"
import { killedRounds, type Writer } from "./suites/blobRounds.ts"

const all: ReadonlyArray<Writer> = [
  { engine: "embedded", driver: "portable" },
  { engine: "libspdk", driver: "portable" },
  { engine: "libspdk", driver: "libspdk" }
]

libspdk("blob rounds", (name, layer) =>
  contract(name, layer, (check) => {
    check("what was synced survives SIGKILL, libspdk", () =>
      killedRounds([{ engine: "libspdk", driver: "libspdk" }], "libspdk", long ? 300 : 4)
    )
    check("what was synced survives SIGKILL, all drivers by turns, read by the portable one", () =>
      killedRounds(all, "portable", long ? 300 : 4)
    )
  })
)
