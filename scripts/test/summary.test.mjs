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
  expect(counts).toEqual({ passed: 1, failed: 1, skipped: 1, notes: [] })
})

it("takes a skipped libspdk test for a failed one only where there is libspdk", () => {
  const skipped = report(test("libspdk x", "skipped"), test("libspdk x", "pending"), test("embedded x", "skipped"))
  expect(summarise(skipped, true)).toEqual({
    passed: 0,
    failed: 2,
    skipped: 1,
    notes: ["failed: SPDK is installed, and these libspdk suites did not run: libspdk x (2)"]
  })
  expect(summarise(skipped, false)).toEqual({ passed: 0, failed: 0, skipped: 3, notes: [] })
})

it("takes a libspdk test for skipped that says what this SPDK lacks", () => {
  const skipped = report({ ...test("libspdk x", "skipped"), meta: { skippedFor: "this SPDK has no such method" } })
  expect(summarise(skipped, true)).toEqual({
    passed: 0,
    failed: 0,
    skipped: 1,
    notes: ["skipped because of what this SPDK lacks: this SPDK has no such method (1)"]
  })
})

it("counts a file that does not load as one failure", () => {
  const broken = { testResults: [{ name: "b.test.ts", status: "failed", assertionResults: [] }] }
  expect(summarise(broken, false)).toEqual({ passed: 0, failed: 1, skipped: 0, notes: [] })
})

it("counts a libspdk test that lacks one of SPDK's programs as skipped, and names the program", () => {
  const noTool = (title) => ({ ...test("libspdk socket", "skipped"), title })
  const lacking = report(
    noTool("rpc.py lists [skipped: no rpc.py in PATH or beside SPDK]"),
    noTool("rpc.py makes [skipped: no rpc.py that starts]"),
    noTool("is read by blobcli [skipped: no C compiler, which blobcli needs to run without hugepages]"),
    test("libspdk nvmf [skipped: no nvmf_tgt in PATH or beside SPDK]", "skipped")
  )
  expect(summarise(lacking, true)).toEqual({
    passed: 0,
    failed: 0,
    skipped: 4,
    notes: ["skipped because programs are missing: rpc.py (2), C compiler (1), nvmf_tgt (1)"]
  })
  const noEngine = report(test("libspdk x [skipped: no SPDK: pkg-config is not installed]", "skipped"))
  expect(summarise(noEngine, true).failed).toBe(1)
})
