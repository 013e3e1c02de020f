// Builds the libspdk addon when pkg-config finds SPDK: exit 0 built or up to date, 3 no SPDK (says what was looked for),
// anything else a failed build. `--sanitize=address` builds an instrumented copy under packages/native/build-address
// instead and prints its path.
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { installed, isTooOld, oldest, show } from "./spdk-version.mjs"

const packageDir = fileURLToPath(new URL("../", import.meta.url))
const addonDir = join(packageDir, "addon")
const sanitize = process.argv.find((argument) => argument.startsWith("--sanitize="))?.slice("--sanitize=".length) ?? ""

const lookedFor = ["spdk_event", "spdk_bdev_modules", "spdk_env_dpdk", "spdk_dpdklibs", "spdk_syslibs"]
if (spawnSync("pkg-config", ["--version"]).error !== undefined) {
  console.log(`no SPDK: pkg-config is not installed (it would have looked for ${lookedFor.join(", ")})`)
  process.exit(3)
}
const missing = lookedFor.filter((name) => spawnSync("pkg-config", ["--exists", name]).status !== 0)
if (missing.length > 0) {
  console.log(`no SPDK: pkg-config does not find ${missing.join(", ")} (looked for ${lookedFor.join(", ")})`)
  process.exit(3)
}
const version = installed()
if (version !== undefined && isTooOld(version)) {
  console.log(
    `no SPDK that is new enough: SPDK ${show(version)} is installed, and ${show(oldest)} is the oldest that works`
  )
  process.exit(3)
}

const sourceFiles = (dir) =>
  readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !(entry.parentPath ?? entry.path).startsWith(join(dir, "build")))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .toSorted()

const fingerprint = () => {
  const hash = createHash("sha256")
  for (const file of sourceFiles(addonDir)) {
    hash.update(file.slice(packageDir.length)).update(readFileSync(file))
  }
  for (const args of [
    ["--modversion", "spdk_event"],
    ["--libs", "spdk_event", "spdk_bdev_modules", "spdk_dpdklibs"]
  ]) {
    hash.update(execFileSync("pkg-config", args))
  }
  return hash.update(process.versions.modules).update(process.arch).update(sanitize).digest("hex")
}

const outDir = join(packageDir, sanitize === "" ? "build/Release" : `build-${sanitize}`)
const addon = join(outDir, "spdk.node")
const stamp = join(outDir, "spdk.stamp")
const wanted = fingerprint()
if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) {
  if (sanitize !== "") console.log(addon)
  process.exit(0)
}

// Wherever the package manager has put them.
const { resolve: locate } = createRequire(import.meta.url)
const nodeGyp = join(dirname(locate("node-gyp/package.json")), "bin", "node-gyp.js")
// The headers that came with this Node, when they did: then nothing is downloaded.
const nodePrefix = resolve(dirname(process.execPath), "..")
const headers = existsSync(join(nodePrefix, "include/node/node_api.h")) ? [`--nodedir=${nodePrefix}`] : []
const gyp = (cwd, ...args) => {
  const result = spawnSync(process.execPath, [nodeGyp, ...args, ...headers], {
    cwd,
    encoding: "utf8",
    env: process.env
  })
  if (result.status !== 0) {
    console.error(result.stdout, result.stderr)
    console.error("the libspdk addon did not build: SPDK is there, so this is an error")
    process.exit(result.status ?? 1)
  }
}

// Built in a copy, so that two builds at once, or an instrumented one, do not meet in node-gyp's one build folder.
const work = mkdtempSync(join(tmpdir(), "effect-spdk-build-"))
// A build that fails ends the process, and an interrupted one is to get here.
process.once("exit", () => rmSync(work, { recursive: true, force: true }))
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1))
for (const name of readdirSync(addonDir)) cpSync(join(addonDir, name), join(work, name), { recursive: true })
mkdirSync(join(work, "node_modules"))
symlinkSync(dirname(locate("node-addon-api/package.json")), join(work, "node_modules", "node-addon-api"))
gyp(work, "rebuild", "--jobs=max", ...(sanitize === "" ? [] : [`--effect_spdk_sanitize=${sanitize}`]))
mkdirSync(outDir, { recursive: true })
cpSync(join(work, "build/Release/spdk.node"), addon)
writeFileSync(stamp, wanted)
if (sanitize !== "") console.log(addon)
