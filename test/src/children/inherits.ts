/**
 * Exports a bdev, has a host connected to it, and starts a detached program that is handed a pipe and a file besides its standard
 * streams. Prints what that program has open, and what one that was started before the engine had, and stays.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { spawn } from "node:child_process"
import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { engineLayer } from "./layers.ts"

const [engine, port = ""] = process.argv.slice(2)

/** A connection that the engine has accepted: its target answers what is no PDU by ending it, which takes its time. */
const connected = Effect.callback<void>((resume) => {
  const socket = connect(Number(port), "127.0.0.1")
  socket.once("connect", () => resume(Effect.void))
  socket.once("error", (error) => resume(Effect.die(error)))
})

const startDetached = (): { readonly pid: number; readonly descriptors: Readonly<Record<string, string>> } => {
  const file = openSync(fileURLToPath(new URL("../../package.json", import.meta.url)), "r")
  const child = spawn("sleep", ["600"], { detached: true, stdio: ["ignore", "ignore", "ignore", "pipe", file] })
  child.unref()
  closeSync(file)
  const pid = child.pid ?? 0
  const folder = `/proc/${pid}/fd`
  const descriptors = readdirSync(folder).map((name) => [name, readlinkSync(`${folder}/${name}`)])
  return { pid, descriptors: Object.fromEntries(descriptors) }
}

/** Whoever started this program may have left something open in it that is none of the engine's. */
const before = startDetached()
process.kill(before.pid, "SIGKILL")

const program = Effect.gen(function* () {
  const target = yield* NvmfTarget.NvmfTarget
  const subsystem = yield* target.subsystem({ nqn: "nqn.2016-06.io.spdk:inherits", allowAnyHost: true })
  yield* subsystem.addNamespace({ bdev: yield* Bdev.createMalloc({ size: "16 MiB" }) })
  yield* subsystem.addListener({ trsvcid: Number(port) })
  yield* connected
  yield* Effect.sync(() => console.log(`inherits ${JSON.stringify({ before, after: startDetached() })}`))
  return yield* Effect.never
})

await Effect.runPromise(
  program.pipe(Effect.scoped, Effect.provide(NvmfTarget.layer().pipe(Layer.provideMerge(engineLayer(engine)))))
)
