/** What a vitest report comes to. */
import { expect, it } from "vitest"
import { summarise } from "../lib/summary.mjs"

const test = (suite, status) => ({ ancestorTitles: [suite, "inner"], title: "does", status })
const report = (...assertionResults) => ({
  testResults: [{ name: "a.test.ts", status: "passed", assertionResults }]
})

it("counts passed, failed and skipped tests", () => {
  const counts = summarise(
    report(test("embedded x", "passed"), test("embedded x", "failed"), test("embedded x", "skipped")),
    true
  )
  expect(counts).toEqual({ passed: 1, failed: 1, skipped: 1 })
})

it("takes a skipped libspdk test for a failed one only where there is libspdk", () => {
  const skipped = report(test("libspdk x", "skipped"), test("libspdk x", "pending"), test("embedded x", "skipped"))
  expect(summarise(skipped, true)).toEqual({ passed: 0, failed: 2, skipped: 1 })
  expect(summarise(skipped, false)).toEqual({ passed: 0, failed: 0, skipped: 3 })
})

it("takes a libspdk test for skipped that says what this SPDK lacks", () => {
  const skipped = report({ ...test("libspdk x", "skipped"), meta: { skippedFor: "this SPDK has no such method" } })
  expect(summarise(skipped, true)).toEqual({ passed: 0, failed: 0, skipped: 1 })
})

it("counts a file that does not load as one failure", () => {
  const broken = { testResults: [{ name: "b.test.ts", status: "failed", assertionResults: [] }] }
  expect(summarise(broken, false)).toEqual({ passed: 0, failed: 1, skipped: 0 })
})
