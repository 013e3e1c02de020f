// Builds and runs the unit tests of the addon's core (rings, handles, mailboxes), which needs neither Node nor SPDK: as
// it is, under ASAN with UBSAN, and under TSAN. Without a C++ compiler they are skipped by name.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const testDir = fileURLToPath(new URL("../packages/native/addon/test/", import.meta.url))
const compiler = [process.env.CXX, "c++", "g++", "clang++"].find(
  (name) => name !== undefined && spawnSync(name, ["--version"]).status === 0
)
const builds = [
  { name: "plain", flags: ["-O2"] },
  {
    name: "asan+ubsan",
    flags: ["-DEFFECT_SPDK_DEBUG", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
  },
  { name: "tsan", flags: ["-DEFFECT_SPDK_DEBUG", "-O1", "-fsanitize=thread"] }
]

if (compiler === undefined) {
  console.log("skipped native unit tests: plain, asan+ubsan, tsan (no C++ compiler)")
  console.log("native unit tests: 0 passed, 0 failed, 3 skipped")
  process.exit(0)
}

const sources = readdirSync(testDir)
  .filter((name) => name.endsWith(".cc"))
  .map((name) => join(testDir, name))
const out = mkdtempSync(join(tmpdir(), "effect-spdk-native-test-"))
const totals = { passed: 0, failed: 0, skipped: 0 }
const linksWith = (flags) =>
  spawnSync(compiler, ["-x", "c++", "-", "-o", join(out, "probe"), ...flags], { input: "int main() {}" }).status === 0

try {
  for (const { flags, name } of builds) {
    if (!linksWith(flags)) {
      console.log(`skipped native unit tests: ${name} (${compiler} has no runtime for it)`)
      totals.skipped++
      continue
    }
    const binary = join(out, name)
    const warnings = [
      "-Wall",
      "-Wextra",
      "-Wshadow",
      "-Wconversion",
      "-Werror",
      "-Wno-missing-field-initializers",
      "-Wno-tsan"
    ]
    const built = spawnSync(
      compiler,
      ["-std=c++20", "-g", "-pthread", ...warnings, ...flags, ...sources, "-o", binary],
      { encoding: "utf8" }
    )
    if (built.status !== 0) {
      console.error(built.stderr)
      totals.failed++
      continue
    }
    const ran = spawnSync(binary, { encoding: "utf8", timeout: 300_000 })
    const counts = /(\d+) passed, (\d+) failed/.exec(ran.stdout)
    if (ran.status !== 0 || counts === null) console.error(ran.stdout, ran.stderr, ran.error ?? "")
    totals.passed += Number(counts?.[1] ?? 0)
    totals.failed += ran.status === 0 ? 0 : Math.max(1, Number(counts?.[2] ?? 0))
    console.log(`native unit tests, ${name}: ${counts?.[0] ?? `did not finish (${ran.signal ?? ran.status})`}`)
  }
} finally {
  rmSync(out, { recursive: true, force: true })
}
console.log(`native unit tests: ${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`)
process.exit(totals.failed === 0 ? 0 : 1)
