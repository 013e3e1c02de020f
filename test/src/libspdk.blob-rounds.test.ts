import { contract } from "./support/harness.ts"
import { libspdk, long } from "./support/engines.ts"
import { killedRounds, type Writer } from "./suites/blobRounds.ts"

const all: ReadonlyArray<Writer> = [
  { engine: "embedded", driver: "portable" },
  { engine: "libspdk", driver: "portable" },
  { engine: "libspdk", driver: "libspdk" }
]

/** For a run of another length. */
const given = process.env["EFFECT_SPDK_ROUNDS"] === undefined ? undefined : Number(process.env["EFFECT_SPDK_ROUNDS"])

libspdk("blob rounds", (name, layer) =>
  contract(name, layer, (check) => {
    check("what was synced survives SIGKILL, libspdk", () =>
      killedRounds([{ engine: "libspdk", driver: "libspdk" }], "libspdk", long ? 300 : 4)
    )
    check("what was synced survives SIGKILL, all drivers by chance, read by the portable one", () =>
      killedRounds(all, "portable", long ? 300 : 2)
    )
    check("what was synced survives SIGKILL, the drivers by turns, each read by the other one", () =>
      killedRounds(all, "other", given ?? (long ? 300 : 2))
    )
  })
)
