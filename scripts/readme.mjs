/**
 * Keeps the programs in the README and in docs/ equal to those in examples/, which are compiled, and run where they can be.
 * Writes the pages; with `--check` only compares, and fails when they differ.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { inRoot } from "./lib/exec.mjs"

const pages = ["README.md", ...readdirSync(inRoot("docs")).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith(".md")
)
const fence = /(<!-- program: (\S+) -->\n```ts\n)[^]*?(```\n)/g
const isCheck = process.argv.includes("--check")

for (const page of pages) {
  const path = inRoot(...page.split("/"))
  const text = readFileSync(path, "utf8")
  const programs = [...text.matchAll(fence)].map((match) => match[2])
  if (programs.length === 0) {
    if (page === "README.md") throw new Error(`${page} has no place for a program`)
    continue
  }
  const wanted = text.replace(
    fence,
    (_, open, program, close) => `${open}${readFileSync(inRoot(...program.split("/")), "utf8")}${close}`
  )
  if (wanted === text) {
    console.log(`${page} shows ${programs.join(", ")}`)
  } else if (isCheck) {
    console.error(`${page} does not show ${programs.join(", ")} as they are: run node scripts/readme.mjs`)
    process.exitCode = 1
  } else {
    writeFileSync(path, wanted)
    console.log(`${page}: programs updated`)
  }
}
