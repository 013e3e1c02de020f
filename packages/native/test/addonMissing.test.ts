import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "vitest"
import { abi } from "../src/internal/abi.ts"

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
      reason: "EFFECT_SPDK_ADDON names a file that does not exist"
    })
  })

  it("and that is no addon does not load", () => {
    const found = loadWith(process.execPath)
    assert.strictEqual(found._tag, "Missing")
    assert.match(found.reason, /does not load/)
  })
})

describe("an addon that was built from other sources", () => {
  const scratch = mkdtempSync(join(tmpdir(), "effect-spdk-stale-"))
  afterAll(() => rmSync(scratch, { recursive: true }))
  // `require` takes a module for an addon by the end of its name alone, so a folder of that name stands in for one.
  const addonOf = (name: string, source: string): string => {
    const folder = join(scratch, name)
    mkdirSync(folder)
    writeFileSync(join(folder, "index.js"), source)
    return folder
  }

  it("is refused with both hashes, and is told how to build it", () => {
    const found = loadWith(addonOf("other", `exports.version = "SPDK"; exports.abi = "0123456789abcdef"`))
    assert.strictEqual(found._tag, "Missing")
    assert.match(found.reason, /other sources.*interface 0123456789abcdef, needed [0-9a-f]{16}.*rebuild it/)
  })

  it("is refused when it is from before there were hashes", () => {
    const found = loadWith(addonOf("old", `exports.version = "SPDK"`))
    assert.match(found.reason, /interface without a hash, needed/)
  })

  it("is taken when it has this one", () => {
    assert.strictEqual(loadWith(addonOf("same", `exports.abi = ${JSON.stringify(abi)}`))._tag, "Loaded")
  })
})
