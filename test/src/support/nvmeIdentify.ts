/** SPDK's own `spdk_nvme_identify`: what it says of a controller. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { spdkTool } from "./spdkTools.ts"

export const identifyTool = spdkTool("spdk_nvme_identify")

const deadlineMillis = 30_000

/** What it prints. It must end well. */
export const identifyOutput = (transportId: string): Effect.Effect<string> =>
  Effect.callback<string>((resume) => {
    const child = execFile(
      identifyTool.path,
      ["--no-huge", "-s", "256", "-r", transportId],
      { timeout: deadlineMillis, killSignal: "SIGKILL" },
      (error, stdout, stderr) =>
        resume(
          error === null && stdout.includes("Controller Capabilities")
            ? Effect.succeed(stdout)
            : Effect.die(new Error(`spdk_nvme_identify ${transportId}: ${error?.message}\n${stdout}\n${stderr}`))
        )
    )
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/** The value behind a label, `Serial Number:   X`, of the first line that has it, or of the one behind `section`. */
export const valueOf = (output: string, label: string, section = ""): string => {
  const lines = output.slice(output.indexOf(section)).split("\n")
  const line = lines.find((one) => one.trimStart().startsWith(`${label}:`))
  if (line === undefined) assert.fail(`spdk_nvme_identify says nothing of "${label}": ${output}`)
  return line.slice(line.indexOf(":") + 1).trim()
}
