#!/usr/bin/env node
// The command of this package. `effect-spdk build` compiles the libspdk addon of the project it is called in.
import { spawnSync } from "node:child_process"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { parseArgs } from "node:util"

const usage = `usage: effect-spdk build [--static] [--verbose]

Compiles the libspdk addon against the SPDK that pkg-config finds, and prints what it did. Without the addon programs use the embedded engine.
  --static   links SPDK and DPDK into the addon, where their archives are installed, so that it runs without their shared libraries
  --verbose  prints the compiler's commands

exit status: 0 built or up to date, 1 the build failed, 2 wrong arguments, 3 no SPDK that can be used`

const options = { static: { type: "boolean" }, verbose: { type: "boolean" }, help: { type: "boolean", short: "h" } }

const parsed = (() => {
  try {
    return parseArgs({ options, allowPositionals: true })
  } catch (error) {
    console.error(error.message)
    return undefined
  }
})()

if (parsed?.values.help) {
  console.log(usage)
} else if (parsed?.positionals.length === 1 && parsed.positionals[0] === "build") {
  const native = dirname(createRequire(import.meta.url).resolve("@effect-spdk/native/package.json"))
  const flags = Object.entries(parsed.values).map(([name]) => `--${name}`)
  const built = spawnSync(process.execPath, [join(native, "addon", "build.mjs"), ...flags], { stdio: "inherit" })
  process.exitCode = built.status ?? 1
} else {
  console.error(usage)
  process.exitCode = 2
}
