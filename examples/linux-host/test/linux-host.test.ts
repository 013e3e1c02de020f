/** The export for a Linux host is checked before the line for it is printed. */
import { describe, expect, it } from "vitest"
import { describeLibspdk, runExample } from "../../support/run.ts"

const run = (engine: "embedded" | "libspdk") => {
  const port = String(20_000 + Math.floor(Math.random() * 10_000))
  const host = "nqn.2014-08.org.nvmexpress:uuid:2f1b3b5e-6b0e-4b62-9d5e-0c7a3d9c1a11"
  const args = ["--port", port, "--host", host, "--once", "--size", "16 MiB", "--engine", engine]
  const { status, stderr, stdout } = runExample("linux-host", args)
  expect(stdout, stderr).toContain("verified: 16777216 bytes")
  expect(stdout).toContain(
    `nvme connect -t tcp -a 127.0.0.1 -s ${port} -n nqn.2026-01.com.example:linux --hostnqn ${host}`
  )
  expect(status).toBe(0)
}
const title = "prints the line to connect with, once the export is verified"

describe("embedded linux-host", () => it(title, () => run("embedded"), 60_000))

describeLibspdk("linux-host", {}, () => {
  it(title, () => run("libspdk"), 60_000)
})
