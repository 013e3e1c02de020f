/** A process of `--jobs`: runs the ranges of seeds that it is sent, one after the other. */
import { type Range, runRange } from "./report.ts"

process.on("message", (range) => {
  const lines: Array<string> = []
  // Of the parent, which sends nothing else.
  const report = runRange(range as Range, (line) => lines.push(line))
  process.send?.({ ...report, lines })
})
