import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it, onTestFinished } from "vitest"

const script = fileURLToPath(new URL("../build-addon.mjs", import.meta.url))

/** Builds with a pkg-config that knows an SPDK of this version, in a folder of the test's own. */
const buildWith = (major, minor) => {
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-version-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, "spdk"))
  writeFileSync(
    join(folder, "spdk", "version.h"),
    `#define SPDK_VERSION_MAJOR\t${major}\n#define SPDK_VERSION_MINOR\t${minor}\n`
  )
  writeFileSync(join(folder, "pkg-config"), `#!/bin/sh\necho "-I${folder}"\n`)
  chmodSync(join(folder, "pkg-config"), 0o755)
  return spawnSync(process.execPath, [script], {
    encoding: "utf8",
    env: { ...process.env, PATH: `${folder}${delimiter}${process.env.PATH}` }
  })
}

it("an SPDK that is too old is named, with the oldest that works", () => {
  for (const [major, minor, name] of [
    [25, 5, "25.05"],
    [24, 9, "24.09"]
  ]) {
    const { status, stdout } = buildWith(major, minor)
    expect(status).toBe(3)
    expect(stdout).toContain(`SPDK ${name} is installed`)
    expect(stdout).toContain("25.09 is the oldest that works")
  }
})
