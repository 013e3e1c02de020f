/**
 * The fuzzer as a program: `node test/dist/fuzz/main.js [--cases=100000] [--seed=1] [--from=0] [--engine=libspdk]`. Ends with 1
 * when it found something.
 */
import { parseArgs } from "node:util"
import { runCampaign } from "./campaign.ts"

const { values } = parseArgs({
  options: {
    cases: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    from: { type: "string", default: "0" },
    engine: { type: "string", default: "libspdk" }
  }
})

const summary = await runCampaign({
  engine: values.engine === "embedded" ? "embedded" : "libspdk",
  seed: Number(values.seed),
  from: Number(values.from),
  cases: Number(values.cases),
  onProgress: (line) => console.log(line)
})
console.log(JSON.stringify(summary))
process.exitCode = summary.findings.length === 0 ? 0 : 1
