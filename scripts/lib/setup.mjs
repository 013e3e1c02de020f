/**
 * Set-up of a fresh clone: dependencies, TypeScript, and the addon where SPDK is installed. Each step is skipped
 * when nothing has changed since; two set-ups at once take turns.
 */
import { createHash } from "node:crypto"
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { exec, inRoot, Interrupted, isInterruption, node, npm, root, SetupError } from "./exec.mjs"
import { withLock } from "./lock.mjs"
import { toolEntry } from "./tools.mjs"

const lockPath = inRoot(".cache", "setup.lock")
const stampPath = inRoot("node_modules", ".effect-spdk-install")
const addonPath = inRoot("packages", "native", "build", "Release", "spdk.node")

const say = (line) => process.stderr.write(`${line}\n`)

/** The pnpm that the lockfile belongs to: package.json names it, npm fetches it. */
const packageManager = () => JSON.parse(readFileSync(inRoot("package.json"), "utf8")).packageManager

/** Folders with a package.json of the workspace, as pnpm-workspace.yaml lists them. */
export const workspaceFolders = () =>
  [
    ...readdirSync(inRoot("packages")).map((name) => inRoot("packages", name)),
    inRoot("examples"),
    inRoot("test"),
    inRoot("bench")
  ].filter((folder) => existsSync(`${folder}/package.json`))

const installHash = () => {
  const hash = createHash("sha256")
  const files = ["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"].map((name) => inRoot(name))
  for (const file of [...files, ...workspaceFolders().map((folder) => `${folder}/package.json`)]) {
    hash.update(file.slice(root.length)).update("\0").update(readFileSync(file)).update("\0")
  }
  return hash.digest("hex")
}

const isInstalled = (hash) =>
  existsSync(stampPath) &&
  readFileSync(stampPath, "utf8") === hash &&
  workspaceFolders().every((folder) => existsSync(`${folder}/node_modules`))

const isWritable = (path) => {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** A home folder that cannot be written (services, containers) moves npm's and pnpm's caches into the clone. */
const installEnv = () => {
  if (isWritable(homedir())) return process.env
  mkdirSync(inRoot(".cache", "home"), { recursive: true })
  return {
    ...process.env,
    HOME: inRoot(".cache", "home"),
    npm_config_cache: inRoot(".cache", "npm"),
    npm_config_store_dir: inRoot(".cache", "pnpm-store")
  }
}

/** Runs the pinned pnpm. */
export const pnpm = (args, options) =>
  npm(["exec", "--yes", "--prefer-offline", packageManager(), "--", ...args], {
    env: installEnv(),
    ...options
  })

/** Stops the set-up when a step failed, with what it printed. */
const checkStep = (what, { code, output }) => {
  if (isInterruption(code)) throw new Interrupted(code)
  if (code !== 0) throw new SetupError(`${output.trim()}\n${what} failed (exit ${code}), see above`)
}

const install = async () => {
  const hash = installHash()
  if (isInstalled(hash)) return
  say(`installing dependencies with ${packageManager()} ...`)
  const installed = await pnpm(
    ["install", "--frozen-lockfile", "--prefer-offline", "--ignore-scripts", "--config.confirmModulesPurge=false"],
    { capture: true }
  )
  checkStep("installing the dependencies", installed)
  writeFileSync(stampPath, hash)
}

/** Compiles the given projects and what they refer to. */
export const typescript = (projects, options) =>
  node(toolEntry("typescript", "tsc"), ["-b", ...projects.map((name) => inRoot(name))], options)

const compile = async (projects) => checkStep("compiling", await typescript(projects, { capture: true }))

const lastLine = (text) => text.trim().split("\n").at(-1) ?? ""

/**
 * Builds the addon when SPDK is there and loads it once in a process of its own. `libspdk` is "available",
 * "missing" (no SPDK on this machine) or "broken" (there is one, and the addon does not build or load).
 */
const buildAddon = async () => {
  const built = await node(inRoot("scripts", "build-addon.mjs"), [], { capture: true })
  if (isInterruption(built.code)) throw new Interrupted(built.code)
  if (built.code === 3) return { libspdk: "missing", why: lastLine(built.output), output: "" }
  if (built.code !== 0) return { libspdk: "broken", why: "the addon does not build", output: built.output }
  const probe = "process.stdout.write(require(process.argv[1]).version)"
  const loaded = await exec(process.execPath, ["-e", probe, addonPath], { capture: true })
  if (loaded.code !== 0) return { libspdk: "broken", why: "the addon does not load", output: loaded.output }
  return { libspdk: "available", why: lastLine(loaded.output), output: "" }
}

const describe = ({ libspdk, why }) =>
  libspdk === "available"
    ? `engines: libspdk (${why}) and embedded`
    : `engines: embedded only; libspdk is ${libspdk}: ${why}`

const underLock = async (body) => {
  if (!isWritable(root)) throw new SetupError(`${root} is not writable for this user, and set-up happens inside of it`)
  mkdirSync(inRoot(".cache"), { recursive: true })
  return await withLock(lockPath, (pid) => say(`waiting for another set-up of this clone (process ${pid}) ...`), body)
}

/** Dependencies only. */
export const setUpTools = () => underLock(install)

/**
 * Dependencies, TypeScript and addon. `projects` are compiled; `generate` runs before that. A broken addon ends the
 * set-up unless `embeddedSuffices`. Resolves with what there is of libspdk.
 */
export const setUp = ({ projects, embeddedSuffices = false, generate = async () => {} }) =>
  underLock(async () => {
    await install()
    await generate()
    if (projects.length > 0) await compile(projects)
    const engines = await buildAddon()
    if (engines.libspdk === "broken") {
      say(engines.output.trim())
      if (!embeddedSuffices) throw new SetupError(`libspdk: ${engines.why}, see above`)
    }
    say(describe(engines))
    return engines
  })
