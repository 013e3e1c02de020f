/** The programs of docs/growing.md, run against a target on this machine: only the addresses are others. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { spawn } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { describeLibspdk } from "../../support/run.ts"

const host = "nqn.2026-01.com.example:this-machine"

/** A program with other addresses, beside the built one, so that it finds what it imports. */
const withAddresses = (name: string, addresses: ReadonlyArray<readonly [string, string]>): string => {
  const built = fileURLToPath(new URL(`../../dist/growing/src/${name}.js`, import.meta.url))
  let text = readFileSync(built, "utf8")
  for (const [from, to] of addresses) {
    expect(text).toContain(from)
    text = text.replaceAll(from, to)
  }
  const path = built.replace(/\.js$/, `.${process.pid}.mjs`)
  writeFileSync(path, text)
  return path
}

/** Runs a program until it ends, or has printed `until`, after which it is interrupted. */
const run = (program: string, until: string | undefined) =>
  Effect.callback<{ readonly status: number | null; readonly output: string }>((resume) => {
    const child = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    const hear = (chunk: Buffer) => {
      output += chunk.toString()
      if (until !== undefined && output.includes(until)) child.kill("SIGINT")
    }
    child.stdout.on("data", hear)
    child.stderr.on("data", hear)
    child.on("close", (status) => {
      rmSync(program, { force: true })
      resume(Effect.succeed({ status, output }))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  }).pipe(Effect.timeout("50 seconds"))

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** A volume behind two listeners, on ports that nobody has. */
const Target = NvmfTarget.layer().pipe(Layer.provideMerge(Spdk.layerEmbedded()))

const volume = Effect.gen(function* () {
  const target = yield* NvmfTarget.NvmfTarget
  const bdev = yield* Bdev.createMalloc({ name: "volume", size: "8 MiB" })
  const subsystem = yield* target.subsystem({ nqn: "nqn.2026-01.com.example:volume", anaReporting: true })
  yield* subsystem.addNamespace({ bdev, nsid: 1 })
  yield* subsystem.addHost({ nqn: host })
  const ports = yield* Effect.all([freePort, freePort])
  for (const trsvcid of ports) yield* subsystem.addListener({ traddr: "127.0.0.1", trsvcid })
  return { ports, read: Bdev.open(bdev, { write: false }) }
})

describeLibspdk("programs of docs/growing.md", { timeout: 60_000 }, () => {
  it("write by two paths", () =>
    Effect.gen(function* () {
      const { ports, read } = yield* volume
      const program = withAddresses("multipath", [
        [`traddr: "192.0.2.1"`, `traddr: "127.0.0.1", trsvcid: ${ports[0]}`],
        [`traddr: "198.51.100.1"`, `traddr: "127.0.0.1", trsvcid: ${ports[1]}`]
      ])
      const { output, status } = yield* run(program, undefined)
      expect(status, output).toBe(0)
      const bdev = yield* read
      const bytes = yield* bdev.readBytes(0, bdev.blockSize)
      expect(new TextDecoder().decode(bytes.subarray(0, 26))).toBe("by whichever path is there")
    }).pipe(Effect.scoped, Effect.provide(Target), Effect.runPromise))

  it("follow the discovery service of gateways", () =>
    Effect.gen(function* () {
      const { ports } = yield* volume
      const program = withAddresses("gateways", [
        [`traddr: "192.0.2.1"`, `traddr: "127.0.0.1"`],
        [`trsvcid: 8009`, `trsvcid: ${ports[0]}`]
      ])
      const { output } = yield* run(program, "BdevFound")
      expect(output).toMatch(/BdevFound .*n1/)
    }).pipe(Effect.scoped, Effect.provide(Target), Effect.runPromise))

  it("say that this SPDK has no RBD, where it has none", () =>
    Effect.gen(function* () {
      const { output, status } = yield* run(
        withAddresses("ceph", [[`traddr: "192.0.2.1"`, `traddr: "127.0.0.1"`]]),
        undefined
      )
      expect(output).toMatch(/bdev_rbd_create.*MethodNotFound/)
      expect(status).toBe(1)
    }).pipe(Effect.runPromise))
})
