/**
 * A disk for a Linux host: exports a file over NVMe/TCP, checks the export, and prints the line to attach it with.
 *
 * Needs SPDK or nothing: it takes the engine that is there, or the one of `--engine libspdk` or `--engine embedded`. The Linux host
 * needs the kernel module nvme-tcp, nvme-cli and root. Run it with the address that the host is to use and the host's name, which is in /etc/nvme/hostnqn there:
 *
 *     node examples/dist/linux-host/src/main.js --traddr 192.0.2.1 --host nqn.2014-08.org.nvmexpress:uuid:... --file disk.img
 *
 * Without `--host` it lets nobody but its own check in. With `--once` it ends after the check.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { parseArgs } from "node:util"

const { values: options } = parseArgs({
  options: {
    traddr: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "4420" },
    host: { type: "string" },
    nqn: { type: "string", default: "nqn.2026-01.com.example:linux" },
    file: { type: "string", default: "disk.img" },
    size: { type: "string", default: "256 MiB" },
    engine: { type: "string", default: "auto" },
    once: { type: "boolean", default: false }
  }
})

const path = { traddr: options.traddr, trsvcid: options.port, subnqn: options.nqn }
const checkerNqn = "nqn.2026-01.com.example:checker"

/** The same at every start: a disk that comes back under another identity is another disk to Linux, and the old one is lost. */
const uuidOf = (name: string): string => {
  const hex = createHash("sha256").update(name).digest("hex")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** Attaches the export as the host would, and reads the beginning of it. */
const check = Effect.gen(function* () {
  const controller = yield* NvmeBdev.attach({ ...path, hostnqn: checkerNqn })
  const bdev = yield* Bdev.open(`${controller.name}n1`)
  const exported = yield* Bdev.Bdev
  const [there, here] = [yield* bdev.readBytes(0, 4096), yield* exported.readBytes(0, 4096)]
  if (Buffer.compare(there, here) !== 0) return yield* Effect.die(new Error("the export has other bytes than the file"))
  if (!bdev.supports("unmap")) return yield* Effect.die(new Error("the export offers no discard"))
  yield* Console.log(`verified: ${bdev.sizeBytes} bytes, the same as the file's`)
}).pipe(Effect.scoped)

const program = Effect.gen(function* () {
  const target = yield* NvmfTarget.NvmfTarget
  const subsystem = yield* target.subsystem({ nqn: options.nqn, serialNumber: "EFFECT-SPDK" })
  yield* subsystem.addNamespace({ bdev: yield* Bdev.Bdev, uuid: uuidOf(options.nqn) })
  // Before there is a listener: a host that connects again after a restart must not be refused meanwhile.
  if (options.host !== undefined) yield* subsystem.addHost({ nqn: options.host })
  yield* subsystem.addListener({ traddr: options.traddr, trsvcid: options.port })
  yield* Effect.scoped(Effect.andThen(subsystem.addHost({ nqn: checkerNqn }), check))
  const name = options.host === undefined ? "" : ` --hostnqn ${options.host}`
  yield* Console.log(`nvme connect -t tcp -a ${options.traddr} -s ${options.port} -n ${options.nqn}${name}`)
  if (options.once) return
  yield* Stream.runForEach(subsystem.controllerEvents(), ({ _tag, controller }) =>
    Console.log(`${_tag}: ${controller.hostNqn}, ${controller.ioQpairs} queues`)
  )
})

const engines: Readonly<Record<string, Layer.Layer<Spdk.Services, unknown>>> = {
  auto: Spdk.layerAuto,
  libspdk: Spdk.layer(),
  embedded: Spdk.layerEmbedded()
}
const engine = engines[options.engine]
if (engine === undefined) throw new Error(`--engine ${options.engine}: there are ${Object.keys(engines).join(", ")}`)

// A Linux host discards what its file system gives back: without fallocate the bdev has no unmap.
const Disk = Bdev.layerFile({ path: options.file, size: options.size, blockSize: 4096, fallocate: true })

NodeRuntime.runMain(
  program.pipe(Effect.scoped, Effect.provide(Layer.mergeAll(Disk, NvmfTarget.layer()).pipe(Layer.provideMerge(engine))))
)
