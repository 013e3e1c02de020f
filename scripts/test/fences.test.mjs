/** What the linter keeps apart: one planted violation of each rule, in an empty tree with the configuration of this one. */
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../../", import.meta.url))
const tree = mkdtempSync(join(tmpdir(), "effect-spdk-fences-"))
cpSync(join(root, ".oxlintrc.json"), join(tree, ".oxlintrc.json"))
afterAll(() => rmSync(tree, { recursive: true, force: true }))

const plant = (name, text) => {
  const path = join(tree, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return name
}

const lint = (paths) =>
  spawnSync(process.execPath, [join(root, "node_modules/oxlint/bin/oxlint"), ...paths], {
    cwd: tree,
    encoding: "utf8",
    timeout: 60_000
  })

const core = "packages/core/src/internal"
const use = (from) => `import * as planted from "${from}"\n\nexport const used = planted\n`

const fences = [
  ["a wire format that imports the driver", `${core}/nvme/wire/planted1.ts`, "../adminQueue.ts", "stand alone"],
  [
    "the embedded engine that imports a handle",
    `${core}/embedded/queue/planted2.ts`,
    "../../io/io.ts",
    "is below this"
  ],
  [
    "a bdev module that imports a public module",
    `${core}/embedded/bdev/modules/planted3.ts`,
    "../../../../Bdev.ts",
    "public modules"
  ],
  [
    "the embedded engine that imports libspdk's",
    `${core}/embedded/runtime/planted4.ts`,
    "../../libspdk/engine.ts",
    "is below this"
  ],
  [
    "the blobstore that imports core's files",
    "packages/blobstore/src/planted5.ts",
    "../../core/src/internal/io/io.ts",
    "public modules"
  ],
  [
    "the target that imports core's insides",
    "packages/nvmf/src/planted6.ts",
    "@effect-spdk/core/internal/io/io",
    "public modules"
  ]
]

describe("the linter refuses", () => {
  it.each(fences)("%s", (_, file, from, words) => {
    const { status, stdout } = lint([plant(file, use(from))])
    expect(stdout).toContain("no-restricted-imports")
    expect(stdout).toContain(words)
    expect(status).not.toBe(0)
  })

  it("two files that import each other", () => {
    const one = plant(
      `${core}/common/planted7.ts`,
      `import { two } from "./planted8.ts"\n\nexport const one = (): number => two()\n`
    )
    const two = plant(
      `${core}/common/planted8.ts`,
      `import { one } from "./planted7.ts"\n\nexport const two = (): number => one()\n`
    )
    const { status, stdout } = lint([one, two])
    expect(stdout).toContain("no-cycle")
    expect(status).not.toBe(0)
  })
})
