/**
 * A volume that is kept in a blobstore, exported over NVMe/TCP and attached in a second process.
 *
 * Needs about 1 GiB of memory and 64 MiB of disk; no root, no hugepages. Logical volumes are SPDK's: on the embedded engine, which
 * has none, the file itself is the volume. It starts itself a second time as the host, which writes, and then looks at the volume
 * here for what was written there.
 *
 *     node examples/dist/export-volume/src/main.js [file] [--engine libspdk|embedded]
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: "string", default: "auto" }, host: { type: "string" } }
})

const nqn = "nqn.2026-01.com.example:volume"
const hostNqn = "nqn.2026-01.com.example:second-process"
const lengthBytes = 2 ** 20

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")
const content = Uint8Array.from({ length: lengthBytes }, (_, index) => (index * 31 + (index >> 8)) % 251)

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen({ host: "127.0.0.1", port: 0 }, () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** This program in another process; what it prints appears here. */
const secondProcess = (port: number): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    const args = [fileURLToPath(import.meta.url), "--host", String(port), "--engine", options.engine]
    const child = spawn(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] })
    child.on("exit", (code) => resume(Effect.succeed(code ?? 1)))
    return Effect.sync(() => void child.kill())
  })

const temporaryFile = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-spdk-volume-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
).pipe(Effect.map((folder) => join(folder, "store.img")))

/** The volume: a blob of SPDK's blobstore, as a bdev. It is found again when the file has it already. */
const volumeOn = Effect.fnUntraced(function* (path: string) {
  yield* Bdev.createFile({ path, size: "64 MiB", name: "store" })
  const spdk = yield* Spdk.Spdk
  const methods = yield* spdk.rpc.call("rpc_get_methods")
  if (!Array.isArray(methods) || !methods.includes("bdev_lvol_create")) {
    yield* Console.log("this engine has no logical volumes: the file itself is the volume")
    return "store"
  }
  // SPDK looks at every new bdev for what it knows, and finds the store of an earlier run.
  yield* spdk.rpc.call("bdev_wait_for_examine")
  if (!(yield* Bdev.list).some((one) => one.aliases.includes("store/volume"))) {
    yield* spdk.rpc.call("bdev_lvol_create_lvstore", { bdev_name: "store", lvs_name: "store" })
    const volume = { lvs_name: "store", lvol_name: "volume", size_in_mib: 32, thin_provision: true }
    yield* spdk.rpc.call("bdev_lvol_create", volume)
  }
  return "store/volume"
})

const exporter = (file: string | undefined) =>
  Effect.gen(function* () {
    const volume = yield* volumeOn(file ?? (yield* temporaryFile))
    const target = yield* NvmfTarget.NvmfTarget
    const port = yield* freePort
    // What belongs to the export ends here, so that nobody holds the volume any more when it is read.
    yield* Effect.scoped(
      Effect.gen(function* () {
        const subsystem = yield* target.subsystem({ nqn })
        yield* subsystem.addNamespace({ bdev: volume })
        yield* subsystem.addHost({ nqn: hostNqn })
        yield* subsystem.addListener({ trsvcid: port })
        yield* Console.log(`${nqn} is exported at 127.0.0.1:${port}`)
        const code = yield* secondProcess(port)
        if (code !== 0) return yield* Effect.die(new Error(`the second process ended with ${code}`))
      })
    )
    const bdev = yield* Bdev.open(volume)
    const found = sha256(yield* bdev.readBytes(0, lengthBytes))
    if (found !== sha256(content)) return yield* Effect.die(new Error("the volume does not hold what was written"))
    yield* Console.log(`verified: the volume holds what the second process wrote, SHA-256 ${found}`)
  })

const host = (port: string) =>
  Effect.gen(function* () {
    const controller = yield* NvmeBdev.attach({ traddr: "127.0.0.1", trsvcid: port, subnqn: nqn, hostnqn: hostNqn })
    const bdev = yield* Bdev.open(`${controller.name}n1`, { write: true })
    yield* Console.log(`the second process sees ${bdev.name} with ${bdev.sizeBytes} bytes, and writes`)
    yield* bdev.writeBytes(0, content)
    yield* bdev.flush()
  })

const engineOptions = { memoryMiB: 512, logLevel: "error" } as const
const engines: Readonly<Record<string, Layer.Layer<Spdk.Services, unknown>>> = {
  auto: Spdk.layerAutoWith(engineOptions),
  libspdk: Spdk.layer(engineOptions),
  embedded: Spdk.layerEmbedded(engineOptions)
}
const engine = engines[options.engine]
if (engine === undefined) throw new Error(`--engine ${options.engine}: there are ${Object.keys(engines).join(", ")}`)
const program =
  options.host === undefined ? exporter(positionals[0]).pipe(Effect.provide(NvmfTarget.layer())) : host(options.host)

NodeRuntime.runMain(program.pipe(Effect.scoped, Effect.provide(engine)))
