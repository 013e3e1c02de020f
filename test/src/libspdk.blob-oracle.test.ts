/** Several fibers with every operation on one store of SPDK's, each beside a model; what is found is compared with it always. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { planOf } from "./simulate/plan.ts"
import { runReal } from "./simulate/real.ts"
import { libspdk, long } from "./support/engines.ts"
import { contract } from "./support/harness.ts"

const seeds = long ? 20_000 : 60
const first = Number(process.env["EFFECT_SPDK_SEED"] ?? 1)

libspdk(
  "blob oracle",
  (name, layer) =>
    contract(name, layer, (check) => {
      for (const driver of ["libspdk", "portable"] as const) {
        check(
          `random plans come to what the model says, by the ${driver} driver`,
          () =>
            Effect.gen(function* () {
              for (let seed = first; seed < first + (driver === "libspdk" ? seeds : seeds / 4); seed++) {
                const { lines, violations } = yield* runReal(planOf(seed, { work: "blobs" }), driver, { log: true })
                assert.deepStrictEqual(violations, [], `EFFECT_SPDK_SEED=${seed}\n${lines.join("\n")}`)
              }
            }),
          { timeoutMillis: long ? 3_600_000 : 60_000 }
        )
      }
    }),
  // SPDK writes a line for each refusal.
  { logLevel: "error" }
)
