import { spawnSync } from "node:child_process"
import { assert, describe, it } from "vitest"

const addonModule = new URL("../dist/Addon.js", import.meta.url).href

/** What a process of its own finds, because the answer of `load` is kept. */
const loadWith = (
  path: string
): { readonly _tag: string; readonly lookedFor: ReadonlyArray<string>; reason: string } => {
  const program = `import { load } from ${JSON.stringify(addonModule)}; console.log(JSON.stringify(load()))`
  const { status, stderr, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    env: { ...process.env, EFFECT_SPDK_ADDON: path }
  })
  assert.strictEqual(status, 0, stderr)
  return JSON.parse(stdout)
}

describe("an addon that the environment names", () => {
  it("and that is not there is missing by that name, and nothing else was looked for", () => {
    assert.deepStrictEqual(loadWith("/not/there/spdk.node"), {
      _tag: "Missing",
      lookedFor: ["/not/there/spdk.node"],
      reason: "EFFECT_SPDK_ADDON names a file that is not there"
    })
  })

  it("and that is no addon does not load", () => {
    const found = loadWith(process.execPath)
    assert.strictEqual(found._tag, "Missing")
    assert.match(found.reason, /does not load/)
  })
})
