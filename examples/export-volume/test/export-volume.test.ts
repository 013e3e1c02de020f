/** The volume that one process exports is what another one writes. */
import { describe, expect, it } from "vitest"
import { describeLibspdk, runExample } from "../../support/run.ts"

const run = (engine: "embedded" | "libspdk") => {
  const { status, stderr, stdout } = runExample("export-volume", ["--engine", engine])
  expect(stdout, stderr).toContain("verified: the volume holds what the second process wrote")
  expect(stdout.includes("the file itself is the volume")).toBe(engine === "embedded")
  expect(status).toBe(0)
}
const title = "attaches the volume in a second process, and finds what that wrote"

describe("embedded export-volume", () => {
  it(title, () => run("embedded"), 60_000)

  it("refuses an engine that there is not", () => {
    const { status, stderr } = runExample("export-volume", ["--engine", "nope"])
    expect(stderr).toContain("--engine nope")
    expect(status).not.toBe(0)
  })
})

describeLibspdk("export-volume", {}, () => {
  it(title, () => run("libspdk"), 60_000)
})
