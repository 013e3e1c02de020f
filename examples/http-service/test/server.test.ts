/** The program, as a user runs it: what was put is there after it was stopped and started again. */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it, onTestFinished } from "vitest"

const program = fileURLToPath(new URL("../../dist/http-service/src/main.js", import.meta.url))

const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(address !== null && typeof address === "object" ? address.port : 0))
    })
  })

const start = (port: number, path: string) => {
  const child = spawn(process.execPath, [program, String(port), path], {
    env: { ...process.env, SPDK_ENGINE: "embedded" },
    stdio: ["ignore", "pipe", "pipe"]
  })
  onTestFinished(() => void child.kill("SIGKILL"))
  let output = ""
  const listens = new Promise<void>((resolve, reject) => {
    const hear = (chunk: Buffer) => {
      output += chunk.toString()
      if (output.includes("Listening")) resolve()
    }
    child.stdout.on("data", hear)
    child.stderr.on("data", hear)
    child.on("exit", () => reject(new Error(output)))
  })
  const stop = () =>
    new Promise<void>((resolve) => {
      child.on("exit", () => resolve())
      child.kill("SIGINT")
    })
  return { listens, stop }
}

it("keeps documents over a restart", { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-http-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/documents/letter`
  const first = start(port, join(folder, "disk.img"))
  await first.listens
  expect((await fetch(url)).status).toBe(404)
  expect((await fetch(url, { method: "PUT", body: "keep this" })).status).toBe(204)
  await first.stop()
  const second = start(port, join(folder, "disk.img"))
  await second.listens
  expect(await (await fetch(url)).text()).toBe("keep this")
  await second.stop()
})
