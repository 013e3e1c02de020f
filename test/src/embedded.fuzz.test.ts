/** The same cases on the embedded engine: no defect, no hang, and nothing is left of them. */
import { assert, describe, it } from "@effect/vitest"
import { runCampaign } from "./fuzz/campaign.ts"
import { long } from "./support/engines.ts"
import { seed } from "./support/random.ts"

describe("embedded fuzz", () => {
  it(
    "creation options and RPC parameters: no defect, no hang",
    async () => {
      const { cases, findings } = await runCampaign({
        engine: "embedded",
        seed: long ? seed : 1,
        from: 0,
        ...(long ? { cases: 20_000 } : { cases: 256, limitMillis: 10_000 })
      })
      assert.isAtLeast(cases, 1)
      assert.deepStrictEqual(findings, [], long ? `EFFECT_SPDK_SEED=${seed}` : "")
    },
    long ? 6 * 3_600_000 : 180_000
  )
})
