/** Mends that are taken out: the simulation must miss each of them. All of them in the long run, one in the short. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { long } from "./support/engines.ts"

const script = fileURLToPath(new URL("../../scripts/simulate-mutations.mjs", import.meta.url))

describe("the simulation", () => {
  it("finds faults whose mends are taken out", { timeout: long ? 7_200_000 : 120_000 }, () => {
    const only = long ? [] : ["failed-first-write-keeps-cluster"]
    const { status, stderr, stdout } = spawnSync(process.execPath, [script, ...only], { encoding: "utf8" })
    assert.strictEqual(status, 0, `${stdout}\n${stderr}`)
  })
})
