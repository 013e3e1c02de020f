/** A mirror over two targets survives the loss of each of them in turn. */
import { expect, it } from "vitest"
import { describeLibspdk, runExample } from "../../support/run.ts"

describeLibspdk("raid-over-fabrics", {}, () => {
  it("kills one target, rebuilds it, and reads everything from it alone", () => {
    const { status, stderr, stdout } = runExample("raid-over-fabrics", [])
    expect(stdout, stderr).toContain("verified: the right target was killed, and the left one alone has every byte")
    expect(status).toBe(0)
  }, 120_000)
})
