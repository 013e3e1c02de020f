/** The same cases on the embedded engine: no defect, no hang, and nothing is left of them. */
import { assert, describe, it } from "@effect/vitest"
import { runCampaign } from "./fuzz/campaign.ts"
import { long } from "./support/engines.ts"
import { seed } from "./support/random.ts"

describe("embedded fuzz", () => {
  it(
    "creation options and RPC parameters: no defect, no hang",
    async () => {
      const { findings } = await runCampaign({
        engine: "embedded",
        seed: long ? seed : 1,
        from: 0,
        cases: long ? 20_000 : 150
      })
      assert.deepStrictEqual(findings, [], long ? `EFFECT_SPDK_SEED=${seed}` : "")
    },
    long ? 6 * 3_600_000 : 60_000
  )
})
