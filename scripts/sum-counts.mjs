/** Prints the sum of the counts that a run left in the file given; fails when anything failed or nothing passed. */
import { readFileSync } from "node:fs"

const counts = readFileSync(process.argv[2], "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line))
const sum = (key) => counts.reduce((total, count) => total + count[key], 0)
console.log(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped`)
process.exitCode = sum("failed") === 0 && sum("passed") > 0 ? 0 : 1
