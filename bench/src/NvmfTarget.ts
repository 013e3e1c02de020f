/**
 * What is measured over NVMe/TCP: a target with one namespace on a malloc bdev, on core 1, in a process of its own; and SPDK's own
 * load generator for it, on core 0.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Job, type NvmfAddress, type Outcome, outcome, type TargetKind } from "./Job.ts"
import { findProgram } from "./onPath.ts"
import { javaScriptCore, reactorCore, run, type Served, serve } from "./spawn.ts"

const memoryMiB = 512
const perfMemoryMiB = 256
const blockSizeBytes = 4096
const startAndStopMillis = 30_000
const traddr = "127.0.0.1"
export const nqn = "nqn.2026-11.io.effect-spdk:bench"

const programs = { nvmf_tgt: findProgram("nvmf_tgt"), spdk_nvme_perf: findProgram("spdk_nvme_perf") }

/** Undefined when SPDK's programs are there. */
export const missing = (): string | undefined => {
  const names = Object.entries(programs).flatMap(([name, path]) => (path === undefined ? [name] : []))
  return names.length === 0 ? undefined : `${names.join(" and ")} not on PATH`
}

const required = (name: keyof typeof programs): string => {
  const path = programs[name]
  if (path === undefined) throw new Error(`${name} is not on PATH`)
  return path
}

const mask = (core: number): string => `0x${(1 << core).toString(16)}`

/** A port that nobody listens on now. */
const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, traddr, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

/** The calls that make the target, in SPDK's words; both kinds of target answer them. */
export const targetCalls = (port: number, sizeBytes: number) => [
  {
    method: "bdev_malloc_create",
    params: { name: "bench", block_size: blockSizeBytes, num_blocks: sizeBytes / blockSizeBytes }
  },
  { method: "nvmf_create_transport", params: { trtype: "TCP" } },
  { method: "nvmf_create_subsystem", params: { nqn, allow_any_host: true, serial_number: "BENCH" } },
  { method: "nvmf_subsystem_add_ns", params: { nqn, namespace: { bdev_name: "bench" } } },
  {
    method: "nvmf_subsystem_add_listener",
    params: { nqn, listen_address: { trtype: "TCP", adrfam: "IPv4", traddr, trsvcid: String(port) } }
  }
]

const configuration = (port: number, sizeBytes: number) => {
  const [bdev, ...nvmf] = targetCalls(port, sizeBytes)
  return {
    subsystems: [
      { subsystem: "bdev", config: [bdev] },
      { subsystem: "nvmf", config: nvmf }
    ]
  }
}

const child = fileURLToPath(new URL("./child.js", import.meta.url))

const start = (kind: TargetKind, port: number, sizeBytes: number, folder: string): Promise<Served> => {
  const options = { ready: /Target Listening on|"listening"/, limitMillis: startAndStopMillis }
  if (kind !== "nvmf_tgt") {
    const job: Job = { kind: "nvmf-serve", engine: kind, port, sizeBytes }
    return serve(process.execPath, [child, JSON.stringify(job)], options)
  }
  const config = join(folder, "target.json")
  writeFileSync(config, JSON.stringify(configuration(port, sizeBytes)))
  const place = ["-m", mask(reactorCore), "--disable-cpumask-locks"]
  const environment = ["--no-huge", "-s", String(memoryMiB), "-u", "-r", join(folder, "rpc.sock"), "-c", config]
  return serve(required("nvmf_tgt"), [...place, ...environment], options)
}

/** Runs `use` while a target of this kind listens. */
export const withTarget = async <A>(
  kind: TargetKind,
  sizeBytes: number,
  use: (address: NvmfAddress) => Promise<A>
): Promise<A> => {
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-bench-"))
  try {
    const port = await freePort()
    const served = await start(kind, port, sizeBytes, folder)
    try {
      return await use({ traddr, port, nqn })
    } finally {
      await served.stop()
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Reads the line "Total : IOPS MiB/s Average min max". */
const parse = (output: string): { readonly iops: number; readonly meanMicros: number } => {
  const total = /^Total\s*:\s*([\d.]+)\s+[\d.]+\s+([\d.]+)/m.exec(output)
  if (total === null) throw new Error(`spdk_nvme_perf printed no total:\n${output}`)
  return { iops: Number(total[1]), meanMicros: Number(total[2]) }
}

type LoadJob = Job & { readonly kind: "nvmf-target" }

const perf = async (job: LoadJob, address: NvmfAddress): Promise<Outcome> => {
  const transportId = `trtype:TCP adrfam:IPv4 traddr:${address.traddr} trsvcid:${address.port} subnqn:${address.nqn}`
  const load = ["-q", String(job.depth), "-o", String(job.ioBytes), "-w", "randread", "-t", String(job.seconds)]
  // A second of warm-up: compilers of JavaScript want it.
  const place = ["-c", mask(javaScriptCore), "--no-huge", "-s", String(perfMemoryMiB), "-a", "1"]
  const { stderr, stdout } = await run(required("spdk_nvme_perf"), [...place, ...load, "-r", transportId], {
    limitMillis: job.seconds * 1000 + startAndStopMillis
  })
  const { iops, meanMicros } = parse(stdout + stderr)
  return outcome({ iops, meanMicros, bytesPerSecond: iops * job.ioBytes })
}

export const measure = (job: LoadJob): Promise<Outcome> =>
  withTarget(job.target, job.sizeBytes, (address) => perf(job, address))
