import { describe, expect, it } from "vitest"
import { simulate } from "../src/main.ts"

describe("the counter", () => {
  it("keeps what it has acknowledged", () => {
    expect(simulate(60, true)).toBeUndefined()
  })

  it("loses it without a flush, and the simulation finds that", () => {
    expect(simulate(60, false)).toBeDefined()
  })
})
