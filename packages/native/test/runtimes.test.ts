import { spawnSync } from "node:child_process"
import { describe, expect, it } from "vitest"
import { unusable } from "../src/internal/runtimes.ts"

describe("a runtime", () => {
  it("that is Node has what the addon needs, also one that says what else is in it", () => {
    expect(unusable(process.versions)).toBeUndefined()
    expect(unusable({ node: "24.11.0", uv: "1.51.0", modules: "137" })).toBeUndefined()
  })

  // They say a version of Node, too.
  const node = "24.3.0"
  it("that lacks the loop or external buffers is named, with its version and what helps", () => {
    expect(unusable({ node, bun: "1.3.0" })).toMatch(/^Bun 1\.3\.0 .*libspdk needs Node\.js/)
    expect(unusable({ node, deno: "2.5.0", uv: "1.43.0" })).toMatch(/^Deno 2\.5\.0 .*libspdk needs Node\.js/)
    expect(unusable({ node, electron: "39.0.0" })).toMatch(/^Electron 39\.0\.0 .*external buffers.*Node\.js/)
  })

  it("that lacks it never loads the addon, whichever one the environment names", () => {
    const addon = new URL("../dist/Addon.js", import.meta.url).href
    const program =
      `Object.defineProperty(process.versions, "bun", { value: "1.3.0" });` +
      `const { load } = await import(${JSON.stringify(addon)}); console.log(JSON.stringify(load()))`
    const { status, stderr, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      encoding: "utf8",
      env: { ...process.env, EFFECT_SPDK_ADDON: process.execPath }
    })
    expect(status, stderr).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      _tag: "Missing",
      lookedFor: [process.execPath],
      reason: expect.stringMatching(/^Bun 1\.3\.0/)
    })
  })
})
