#!/usr/bin/env node
/**
 * Takes mends out, one at a time, and sees that the simulation misses each of them: it must find every fault within the number of
 * seeds that its patch states. Arguments select patches by name. Run it on a built project.
 *
 * A copy of the packages is compiled outside of the repository; its dependencies are those that are installed.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { exec, inRoot, node } from "./lib/exec.mjs"
import { toolEntry } from "./lib/tools.mjs"

const folder = inRoot("test", "src", "simulate", "mutations")
const parts = ["packages", "test", "tsconfig.base.json"]
/** Neither sources nor what a compilation needs. */
const left = new Set(["build", "addon", "bench"])

const makeCopy = () => {
  const copy = mkdtempSync(join(tmpdir(), "effect-spdk-mutations-"))
  for (const part of parts) {
    cpSync(inRoot(part), join(copy, part), {
      recursive: true,
      verbatimSymlinks: true,
      preserveTimestamps: true,
      filter: (path) => !left.has(basename(path))
    })
  }
  symlinkSync(inRoot("node_modules"), join(copy, "node_modules"))
  return copy
}

const readPatch = (name) => {
  const text = readFileSync(join(folder, name), "utf8")
  const field = (key) => new RegExp(`^${key}: (.*)$`, "m").exec(text)?.[1] ?? ""
  return {
    name,
    fault: field("fault"),
    seeds: Number(field("seeds")),
    options: field("options").split(" ").filter(Boolean)
  }
}

const apply = async (copy, { name }, ...options) =>
  (await exec("git", ["apply", "--unsafe-paths", ...options, join(folder, name)], { cwd: copy, capture: true }))
    .code === 0

const compile = async (copy) =>
  (await node(toolEntry("typescript", "tsc"), ["-b", join(copy, "test")], { capture: true })).code === 0

/** How many seeds it took; undefined when it was not found. */
const find = async (copy, { options, seeds }) => {
  const main = join(copy, "test", "dist", "simulate", "main.js")
  const { output } = await node(
    main,
    ["--seed", "1", "--seeds", String(seeds), "--jobs", "0", "--no-shrink", ...options],
    {
      capture: true
    }
  )
  const count = /^(\d+) seeds from 1 on, (\d+) failed/m.exec(output)
  if (count === null) throw new Error(`the simulation did not end:\n${output.slice(-2000)}`)
  return count[2] === "0" ? undefined : Number(count[1])
}

const wanted = process.argv.slice(2)
const all = readdirSync(folder).filter((name) => name.endsWith(".patch"))
const patches = all.filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part))).map(readPatch)
const copy = makeCopy()
let missed = 0
try {
  if (!existsSync(join(copy, "test", "dist"))) throw new Error("the project is not built")
  for (const patch of patches) {
    const start = performance.now()
    const isApplied = (await apply(copy, patch)) && (await compile(copy))
    const needed = isApplied ? await find(copy, patch) : undefined
    const verdict = !isApplied ? "DOES NOT APPLY" : needed === undefined ? "MISSED" : `found in ${needed}`
    if (needed === undefined) missed++
    console.log(
      `${verdict} of ${patch.seeds} seeds, ${((performance.now() - start) / 1000).toFixed(0)} s: ${patch.name}: ${patch.fault}`
    )
    await apply(copy, patch, "--reverse")
  }
} finally {
  rmSync(copy, { recursive: true, force: true })
}
console.log(`mutations: ${patches.length - missed} found, ${missed} missed`)
process.exitCode = missed === 0 ? 0 : 1
