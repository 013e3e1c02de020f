/** How blobstores end with the process or the worker that has them, each way in a process of its own. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { describeWithSpdk } from "./support/rawSpdk.ts"

const program = fileURLToPath(new URL("./children/blobstores.mjs", import.meta.url))

const run = (way: string): Promise<object> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [program, way], { timeout: 45_000, killSignal: "SIGKILL" })
    const said = { stdout: "", stderr: "" }
    child.stdout.on("data", (text) => (said.stdout += String(text)))
    child.stderr.on("data", (text) => (said.stderr += String(text)))
    child.once("close", (code, signal) => resolve({ code, signal, ...said }))
  })

describeWithSpdk("the end of a blobstore", () => {
  it("comes with the process, in the middle of I/O and of metadata", async () => {
    expect(await run("exit")).toEqual({ code: 9, signal: null, stdout: "", stderr: "" })
  })

  it("comes with the process on a slow device", async () => {
    expect(await run("exit while it is slow")).toEqual({ code: 10, signal: null, stdout: "", stderr: "" })
  })

  it("comes with the worker, and leaves the bdev and what is on it", async () => {
    const held = {
      threads: 0,
      descriptors: 0,
      channels: 0,
      pollers: 0,
      blobstores: 0,
      blobs: 0,
      nvmeControllers: 0,
      slabs: 0,
      dmaBytes: 0
    }
    const stdout = expect.stringContaining(`usage ${JSON.stringify(held)}`)
    expect(await run("terminate")).toEqual({ code: 0, signal: null, stdout, stderr: expect.anything() })
  })
})
