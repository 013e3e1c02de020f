/**
 * A mirror over two machines: two targets, a raid1 of both, one target killed and rebuilt.
 *
 * Needs SPDK, so libspdk, about 1.5 GiB of memory and 128 MiB of disk; no root, no hugepages. The targets are processes of
 * their own on this machine, which this program starts; on two machines only their addresses differ.
 *
 *     node examples/dist/raid-over-fabrics/src/main.js
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const sizeBytes = 32 * 2 ** 20
const chunkBytes = 2 ** 20

const nqnOf = (name: string): string => `nqn.2026-01.com.example:${name}`

/** One half of the mirror: exports a file until it is killed. */
const target = (name: string, file: string, port: string) =>
  Effect.gen(function* () {
    const bdev = yield* Bdev.createFile({ path: file, size: sizeBytes, blockSize: 4096 })
    const { subsystem: make } = yield* NvmfTarget.NvmfTarget
    const subsystem = yield* make({ nqn: nqnOf(name), allowAnyHost: true })
    yield* subsystem.addNamespace({ bdev })
    yield* subsystem.addListener({ trsvcid: port })
    yield* Console.log("listening")
    return yield* Effect.never
  }).pipe(Effect.provide(NvmfTarget.layer()))

interface Half {
  readonly name: string
  readonly file: string
  readonly port: string
}

/** Starts a target in a process of its own, and waits until it listens. */
const startTarget = ({ file, name, port }: Half) =>
  Effect.acquireRelease(
    Effect.callback<ChildProcess>((resume) => {
      const args = [fileURLToPath(import.meta.url), "--target", name, file, port]
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
      child.stdout.on("data", (text: Buffer) => {
        if (text.includes("listening")) resume(Effect.succeed(child))
      })
      child.on("exit", (code) => resume(Effect.die(new Error(`target ${name} ended with ${code}`))))
    }),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )

const kill = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    child.removeAllListeners("exit").on("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** Given up soon when it does not answer, so that the mirror goes on without it. */
const attach = ({ name, port }: Half) =>
  Effect.map(
    NvmeBdev.attach({
      name,
      traddr: "127.0.0.1",
      trsvcid: port,
      subnqn: nqnOf(name),
      lossTimeout: "3 seconds",
      reconnectDelay: "1 second",
      fastIoFailTimeout: "1 second"
    }),
    () => `${name}n1`
  )

const freePort = Effect.callback<string>((resume) => {
  const server = createServer().listen({ host: "127.0.0.1", port: 0 }, () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? String(address.port) : ""
    server.close(() => resume(Effect.succeed(port)))
  })
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-spdk-mirror-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const Raids = Schema.Array(
  Schema.Struct({
    num_base_bdevs_operational: Schema.Number,
    process: Schema.optional(Schema.Struct({ type: Schema.String }))
  })
)

/** Waits until so many halves carry the mirror, with no rebuild under way. */
const untilCarriedBy = (halves: number) =>
  Rpc.call("bdev_raid_get_bdevs", { category: "online" }).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Raids)),
    Effect.repeat({
      until: ([raid]) => raid?.num_base_bdevs_operational === halves && raid.process === undefined,
      schedule: Schedule.spaced("100 millis")
    }),
    Effect.timeout("60 seconds")
  )

const contentOf = (version: number, index: number): Uint8Array =>
  Uint8Array.from({ length: chunkBytes }, (_, at) => (at * 7 + index * 13 + version * 101) % 253)

const writeAll = (bdev: Bdev.Bdev, version: number) =>
  Effect.forEach(
    Array.from({ length: bdev.sizeBytes / chunkBytes }, (_, index) => index),
    (index) => bdev.writeBytes(index * chunkBytes, contentOf(version, index)),
    { discard: true }
  )

const verifyAll = (bdev: Bdev.Bdev, version: number) =>
  Effect.forEach(
    Array.from({ length: bdev.sizeBytes / chunkBytes }, (_, index) => index),
    (index) =>
      Effect.flatMap(bdev.readBytes(index * chunkBytes, chunkBytes), (bytes) =>
        Buffer.compare(bytes, contentOf(version, index)) === 0
          ? Effect.void
          : Effect.die(new Error(`MiB ${index} does not hold version ${version}`))
      ),
    { discard: true }
  )

const client = Effect.gen(function* () {
  const directory = yield* folder
  const halfOf = (name: string) =>
    Effect.map(freePort, (port): Half => ({ name, file: join(directory, `${name}.img`), port }))
  const [left, right] = [yield* halfOf("left"), yield* halfOf("right")]
  const processes = yield* Effect.all([startTarget(left), startTarget(right)], { concurrency: 2 })
  const attached = yield* Scope.make()
  const bases = [yield* attach(left).pipe(Scope.provide(attached)), yield* attach(right)]
  yield* Bdev.create({
    method: "bdev_raid_create",
    params: { name: "mirror", raid_level: "raid1", base_bdevs: bases },
    deleteMethod: "bdev_raid_delete",
    name: "mirror"
  })
  const mirror = yield* Bdev.open("mirror", { write: true })
  yield* writeAll(mirror, 1)
  yield* Console.log(`two targets, one mirror of ${mirror.sizeBytes} bytes: written`)

  yield* kill(processes[0])
  yield* writeAll(mirror, 2)
  yield* untilCarriedBy(1)
  yield* verifyAll(mirror, 2)
  yield* Console.log("the left target was killed: the mirror goes on, and was written again")

  yield* Scope.close(attached, Exit.void)
  const again = yield* startTarget(left)
  const base_bdev = yield* attach(left)
  yield* Rpc.call("bdev_raid_add_base_bdev", { raid_bdev: "mirror", base_bdev })
  yield* untilCarriedBy(2)
  yield* Console.log("the left target is back, and rebuilt")

  yield* kill(processes[1])
  yield* verifyAll(mirror, 2)
  yield* Console.log("verified: the right target was killed, and the left one alone has every byte")
  yield* kill(again)
})

const [role, name = "", file = "", port = ""] = process.argv.slice(2)
const program: Effect.Effect<void, unknown, Spdk.Services | Scope.Scope> =
  role === "--target" ? target(name, file, port) : client

NodeRuntime.runMain(program.pipe(Effect.scoped, Effect.provide(Spdk.layer({ memoryMiB: 512, logLevel: "error" }))))
