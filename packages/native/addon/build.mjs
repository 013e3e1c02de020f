// Builds the libspdk addon when pkg-config finds SPDK, and prints what it did: exit 0 built or up to date, 3 no SPDK (says what was
// looked for), anything else a failed build.
//   --static            links SPDK and DPDK into it, from their archives
//   --sanitize=address  an instrumented copy, under build-address
//   --debug             with assertions, under build-debug
//   --out=FOLDER        into that folder of the package instead of build/Release
//   --werror            warnings of the compiler fail the build: for those who change the sources
//   --verbose           prints the compiler's commands
// The last line names the addon.
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
import { parseArgs } from "node:util"
import { installed, isTooOld, oldest, show } from "./spdk-version.mjs"

const { values: options } = parseArgs({
  options: {
    static: { type: "boolean", default: false },
    sanitize: { type: "string", default: "" },
    out: { type: "string" },
    debug: { type: "boolean", default: false },
    werror: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false }
  }
})

const packageDir = fileURLToPath(new URL("../", import.meta.url))
const addonDir = join(packageDir, "addon")

const leave = (code, text) => {
  console.log(text)
  process.exit(code)
}

const lookedFor = ["spdk_event", "spdk_bdev_modules", "spdk_env_dpdk", "spdk_dpdklibs", "spdk_syslibs"]
if (spawnSync("pkg-config", ["--version"]).error !== undefined) {
  leave(3, `no SPDK: pkg-config is not installed (it would have looked for ${lookedFor.join(", ")})`)
}
const missing = lookedFor.filter((name) => spawnSync("pkg-config", ["--exists", name]).status !== 0)
if (missing.length > 0) {
  leave(3, `no SPDK: pkg-config does not find ${missing.join(", ")} (looked for ${lookedFor.join(", ")})`)
}
const version = installed()
if (version !== undefined && isTooOld(version)) {
  leave(
    3,
    `no SPDK that is new enough: SPDK ${show(version)} is installed, and ${show(oldest)} is the oldest that works`
  )
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
  hash.update(process.versions.modules).update(process.arch).update(options.sanitize)
  return hash
    .update(options.static ? "static" : "")
    .update(options.debug ? "debug" : "")
    .digest("hex")
}

const folderOf = () => {
  if (options.sanitize !== "") return `build-${options.sanitize}`
  return options.debug ? "build-debug" : "build/Release"
}
const outDir = join(packageDir, options.out ?? folderOf())
const addon = join(outDir, "spdk.node")
const stamp = join(outDir, "spdk.stamp")
const wanted = fingerprint()
const spdk = `SPDK ${version === undefined ? "of an unknown version" : show(version)}`
if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) {
  leave(0, `the libspdk addon for ${spdk} is up to date:\n${addon}`)
}

/** Of the project that the build is called from, of this package, or the one that npm has for itself. */
const findNodeGyp = () => {
  const modules = [
    join(process.cwd(), "package.json"),
    import.meta.url,
    join(dirname(process.execPath), "../lib/node_modules/npm/package.json")
  ]
  for (const from of modules) {
    try {
      return dirname(createRequire(from).resolve("node-gyp/package.json"))
    } catch {
      // Not there: the next one.
    }
  }
  return leave(1, "node-gyp, which compiles addons, is not installed: npm install --save-dev node-gyp")
}

const nodeGyp = findNodeGyp()
const nodeGypVersion = JSON.parse(readFileSync(join(nodeGyp, "package.json"), "utf8")).version
console.log(`compiling the libspdk addon for ${spdk} with node-gyp ${nodeGypVersion}, which takes a minute ...`)

// The headers that came with this Node, when they did: then nothing is downloaded.
const nodePrefix = resolve(dirname(process.execPath), "..")
const headers = existsSync(join(nodePrefix, "include/node/node_api.h")) ? [`--nodedir=${nodePrefix}`] : []
const gyp = (cwd, ...args) => {
  const result = spawnSync(process.execPath, [join(nodeGyp, "bin", "node-gyp.js"), ...args, ...headers], {
    cwd,
    encoding: "utf8",
    env: process.env,
    maxBuffer: 2 ** 28,
    ...(options.verbose ? { stdio: "inherit" } : {})
  })
  if (result.status !== 0) {
    if (!options.verbose) console.error(result.stdout, result.stderr)
    console.error("the libspdk addon did not build: SPDK is there, so this is an error")
    process.exit(result.status ?? 1)
  }
}

// Built in a copy, so that two builds at once, or an instrumented one, do not meet in node-gyp's one build folder.
const started = Date.now()
const work = mkdtempSync(join(tmpdir(), "effect-spdk-build-"))
// A build that fails ends the process, and an interrupted one is to get here.
process.once("exit", () => rmSync(work, { recursive: true, force: true }))
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1))
for (const name of readdirSync(addonDir)) cpSync(join(addonDir, name), join(work, name), { recursive: true })
mkdirSync(join(work, "node_modules"))
const nodeAddonApi = dirname(createRequire(import.meta.url).resolve("node-addon-api/package.json"))
symlinkSync(nodeAddonApi, join(work, "node_modules", "node-addon-api"))
gyp(
  work,
  "rebuild",
  "--jobs=max",
  ...(options.verbose ? ["--verbose"] : []),
  ...(options.sanitize === "" ? [] : [`--effect_spdk_sanitize=${options.sanitize}`]),
  ...(options.debug ? ["--effect_spdk_debug=1"] : []),
  ...(options.werror ? ["--effect_spdk_werror=1"] : []),
  ...(options.static ? ["--effect_spdk_link=static"] : [])
)
mkdirSync(outDir, { recursive: true })
// As a new file: a process that has the old one mapped keeps it.
rmSync(addon, { force: true })
cpSync(join(work, "build/Release/spdk.node"), addon)
writeFileSync(stamp, wanted)
const seconds = ((Date.now() - started) / 1000).toFixed(0)
console.log(`built in ${seconds} s, ${options.static ? "with SPDK inside" : "on SPDK's shared libraries"}:\n${addon}`)
