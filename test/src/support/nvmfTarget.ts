/**
 * NVMe/TCP targets for the suites, each a process of its own that is driven by RPC: SPDK's nvmf_tgt, and the embedded engine.
 */
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { scratchFile } from "./engines.ts"
import { fresh } from "./harness.ts"
import { freePort } from "./ports.ts"
import { spdkTool } from "./spdkTools.ts"

export interface NvmfTarget {
  readonly kind: "nvmf_tgt" | "embedded"
  /** Dies with what the target answers instead of a result. */
  readonly rpc: (method: string, params?: Readonly<Record<string, unknown>>) => Effect.Effect<Schema.Json>
  /** SIGKILL, and waits for its end. */
  readonly kill: Effect.Effect<void>
  /** SIGSTOP: connections stay, and nobody answers. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

export type NvmfTargetFactory = Effect.Effect<NvmfTarget, never, Scope.Scope>

export const nvmfTgtTool = spdkTool("nvmf_tgt")

const startMillis = 30_000

/** SPDK's own target. */
export const nvmfTgt: NvmfTargetFactory = Effect.suspend(() =>
  started("nvmf_tgt", (socket) => [
    nvmfTgtTool.path,
    ...["--no-huge", "-s", "512", "--no-pci", "--disable-cpumask-locks", "-r", socket]
  ])
)

/** The embedded engine in a Node process. */
export const embeddedTgt: NvmfTargetFactory = Effect.suspend(() =>
  started("embedded", (socket) => [
    process.execPath,
    fileURLToPath(new URL("../../dist/children/nvmfTarget.js", import.meta.url)),
    socket
  ])
)

const started = (kind: NvmfTarget["kind"], command: (socket: string) => ReadonlyArray<string>): NvmfTargetFactory =>
  Effect.gen(function* () {
    const socket = `${yield* scratchFile}.sock`
    const [program = "", ...args] = command(socket)
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] })),
      end
    )
    let said = ""
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        said = `${said}${text}`.slice(-4000)
      })
    }
    const client = yield* Effect.orDie(
      Rpc.make({ address: { path: socket }, reconnect: Schedule.spaced("50 millis"), timeout: startMillis })
    )
    const rpc = (method: string, params?: Readonly<Record<string, unknown>>) =>
      Effect.suspend(() =>
        hasEnded(child)
          ? Effect.die(new Error(`${kind} has ended; it said ${said}`))
          : Effect.catch(client.call(method, params), (error) =>
              Effect.die(new Error(`${error.message}; it said ${said}`))
            )
      )
    yield* rpc("nvmf_create_transport", { trtype: "TCP" })
    const signal = (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name))
    return { kind, rpc, kill: end(child), freeze: signal("SIGSTOP"), thaw: signal("SIGCONT") }
  })

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (hasEnded(child)) resume(Effect.void)
    else {
      child.on("exit", () => resume(Effect.void))
      child.kill("SIGKILL")
    }
  })

export interface Exported {
  readonly subnqn: string
  readonly port: number
  /** Of `Nvme.connect`. */
  readonly transportId: string
  /** By namespace id. */
  readonly bdevs: ReadonlyMap<number, string>
}

export interface ExportOptions {
  readonly namespaces?:
    | ReadonlyArray<{ readonly nsid: number; readonly blockSize?: number; readonly numBlocks?: number }>
    | undefined
  /** Also the discovery service, on the same port. */
  readonly discovery?: boolean | undefined
  readonly serial?: string | undefined
  readonly model?: string | undefined
  /** The most that one Write Zeroes takes: 4 KiB by two to the power of it. */
  readonly wzsl?: number | undefined
  /** Default: any host may connect. */
  readonly hosts?: ReadonlyArray<string> | undefined
}

export const defaultBlocks = 65_536

/** A subsystem of its own on a port of its own, gone with the scope unless the target has gone before. */
export const exported = (
  target: NvmfTarget,
  options: ExportOptions = {}
): Effect.Effect<Exported, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { discovery = false, hosts, model = "Contract", namespaces = [{ nsid: 1 }], serial = "CONTRACT1" } = options
    const subnqn = `nqn.2016-06.io.spdk:${fresh("contract").replaceAll("_", "-")}`
    const port = yield* freePort
    const bdevs = new Map<number, string>()
    const listen = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: `${port}` }
    const create = { nqn: subnqn, serial_number: serial, model_number: model, allow_any_host: hosts === undefined }
    const limits = options.wzsl === undefined ? {} : { wzsl: options.wzsl }
    yield* target.rpc("nvmf_create_subsystem", { ...create, ...limits, ana_reporting: true })
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        yield* target.rpc("nvmf_delete_subsystem", { nqn: subnqn })
        for (const name of bdevs.values()) yield* target.rpc("bdev_malloc_delete", { name })
      }).pipe(Effect.timeout("5 seconds"), Effect.exit)
    )
    for (const { blockSize = 512, nsid, numBlocks = defaultBlocks } of namespaces) {
      bdevs.set(nsid, yield* addNamespace(target, subnqn, nsid, blockSize, numBlocks))
    }
    for (const host of hosts ?? []) yield* target.rpc("nvmf_subsystem_add_host", { nqn: subnqn, host })
    yield* target.rpc("nvmf_subsystem_add_listener", { nqn: subnqn, listen_address: listen })
    if (discovery) {
      const nqn = "nqn.2014-08.org.nvmexpress.discovery"
      yield* target.rpc("nvmf_subsystem_add_listener", { nqn, listen_address: listen })
      yield* Effect.addFinalizer(() =>
        target
          .rpc("nvmf_subsystem_remove_listener", { nqn, listen_address: listen })
          .pipe(Effect.timeout("5 seconds"), Effect.exit)
      )
    }
    const transportId = `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port} subnqn:${subnqn}`
    return { subnqn, port, transportId, bdevs }
  })

/** A malloc bdev, exported. Returns its name. */
export const addNamespace = (
  target: NvmfTarget,
  subnqn: string,
  nsid: number,
  blockSize = 512,
  numBlocks = defaultBlocks
): Effect.Effect<string> =>
  Effect.gen(function* () {
    const name = fresh("ns")
    yield* target.rpc("bdev_malloc_create", { name, block_size: blockSize, num_blocks: numBlocks })
    const added = yield* target.rpc("nvmf_subsystem_add_ns", {
      nqn: subnqn,
      namespace: { bdev_name: name, nsid }
    })
    assert.strictEqual(added, nsid)
    return name
  })
