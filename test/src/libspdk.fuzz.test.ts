/**
 * Creation options and RPC parameters against libspdk in child processes: nothing kills it, nothing hangs. A few hundred known
 * cases here; with EFFECT_SPDK_LONG 100,000 new ones (see fuzz/main.ts for other numbers).
 */
import { assert, describe, it } from "@effect/vitest"
import { runCampaign } from "./fuzz/campaign.ts"
import { long } from "./support/engines.ts"
import { libspdkMissing } from "./support/libspdkMissing.ts"
import { seed } from "./support/random.ts"

const numCases = 256
/** On a machine that is busy with more, there are fewer cases. */
const limitMillis = 10_000
const longCases = 100_000

if (libspdkMissing !== undefined) {
  describe(`libspdk fuzz [skipped: ${libspdkMissing}]`, () => {
    it.skip(`skipped: ${libspdkMissing}`, () => {})
  })
} else {
  describe("libspdk fuzz", () => {
    it(
      "creation options and RPC parameters: no signal, no hang, no defect",
      async () => {
        const { cases, findings } = await runCampaign({
          engine: "libspdk",
          seed: long ? seed : 1,
          from: 0,
          ...(long ? { cases: longCases } : { cases: numCases, limitMillis })
        })
        assert.isAtLeast(cases, long ? longCases : 1)
        assert.deepStrictEqual(findings, [], long ? `EFFECT_SPDK_SEED=${seed}` : "")
      },
      long ? 6 * 3_600_000 : 180_000
    )
  })
}
