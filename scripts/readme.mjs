/**
 * Keeps the program on the README's first screen equal to examples/first/src/main.ts, which is compiled and run.
 * Writes the README; with `--check` only compares, and fails when they differ.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { inRoot } from "./lib/exec.mjs"

const readmePath = inRoot("README.md")
const readme = readFileSync(readmePath, "utf8")
const program = readFileSync(inRoot("examples", "first", "src", "main.ts"), "utf8")
const fence = /(<!-- program: examples\/first\/src\/main\.ts -->\n```ts\n)[^]*?(```\n)/
if (!fence.test(readme)) throw new Error("README.md has no place for the program")
const wanted = readme.replace(fence, (_, open, close) => `${open}${program}${close}`)

if (wanted === readme) {
  console.log("README.md shows the program of examples/first/src/main.ts")
} else if (process.argv.includes("--check")) {
  console.error("README.md does not show examples/first/src/main.ts as it is: run node scripts/readme.mjs")
  process.exitCode = 1
} else {
  writeFileSync(readmePath, wanted)
  console.log("README.md: program updated")
}
