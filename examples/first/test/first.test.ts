/** The program on the README's first screen does what it says. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { describeLibspdk } from "../../support/run.ts"

const program = fileURLToPath(new URL("../../dist/first/src/main.js", import.meta.url))

const suite = (engine: "embedded" | "libspdk"): void => {
  it("keeps a letter in a blob and reads it back", () => {
    const folder = mkdtempSync(join(tmpdir(), "effect-spdk-first-test-"))
    try {
      const env = { ...process.env, SPDK_ENGINE: engine }
      const { status, stdout } = spawnSync(process.execPath, [program], { cwd: folder, env, encoding: "utf8" })
      expect(stdout).toContain("Dear disk, keep this.")
      expect(stdout).toContain(`takes the ${engine} engine`)
      expect(status).toBe(0)
      expect(statSync(join(folder, "disk.img")).size).toBe(256 * 2 ** 20)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
}

describe("embedded first program", () => suite("embedded"))

describeLibspdk("first program", {}, () => suite("libspdk"))
