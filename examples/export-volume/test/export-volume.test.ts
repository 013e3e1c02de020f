/** The volume that one process exports is what another one writes. */
import { describe, expect, it } from "vitest"
import { libspdkMissing, runExample } from "../../support/run.ts"

describe.skipIf(libspdkMissing !== undefined)(`libspdk export-volume [${libspdkMissing ?? "libspdk"}]`, () => {
  it("attaches the volume in a second process, and finds what that wrote", () => {
    const { status, stderr, stdout } = runExample("export-volume", [])
    expect(stdout, stderr).toContain("verified: the volume holds what the second process wrote")
    expect(status).toBe(0)
  }, 60_000)
})
