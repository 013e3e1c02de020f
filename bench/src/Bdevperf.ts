/** SPDK's own load generator as a peer: same device, same size, same depth, same core as our reactor. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Job, onLvolBytes, type Outcome, throughput } from "./Job.ts"
import { findProgram } from "./onPath.ts"
import { reactorCore, run } from "./spawn.ts"

const memoryMiB = 512
const blockSizeBytes = 4096
const startAndStopMillis = 20_000

/** On PATH, or where `SPDK_EXAMPLE_DIR` says that SPDK's examples were built. */
export const program = findProgram("bdevperf", [process.env["SPDK_EXAMPLE_DIR"] ?? ""])

export const whereLooked = "bdevperf is neither on PATH nor in the folder that SPDK_EXAMPLE_DIR names"

type BdevperfJob = Job & { readonly kind: "bdevperf" }

/** The calls that make the bdev. bdevperf leaves alone what an lvol store has claimed. */
const calls = ({ bdev }: BdevperfJob): ReadonlyArray<{ readonly method: string; readonly params: object }> => {
  const numBlocks = (sizeBytes: number) => sizeBytes / blockSizeBytes
  const params = { name: "bench", block_size: blockSizeBytes }
  switch (bdev.type) {
    case "file":
    case "new-file":
      return [{ method: "bdev_aio_create", params: { ...params, filename: bdev.path } }]
    case "malloc":
    case "null":
      return [{ method: `bdev_${bdev.type}_create`, params: { ...params, num_blocks: numBlocks(bdev.sizeBytes) } }]
    case "lvol": {
      const base = { ...params, num_blocks: numBlocks(onLvolBytes(bdev.sizeBytes)) }
      const store = { bdev_name: "bench", lvs_name: "lvs", cluster_sz: bdev.clusterBytes }
      const lvol = { lvs_name: "lvs", lvol_name: "lvol", size_in_mib: bdev.sizeBytes / 2 ** 20 }
      return [
        { method: "bdev_malloc_create", params: base },
        { method: "bdev_lvol_create_lvstore", params: store },
        { method: "bdev_lvol_create", params: lvol }
      ]
    }
  }
}

const configuration = (job: BdevperfJob) => ({ subsystems: [{ subsystem: "bdev", config: calls(job) }] })

/** User and system time that a process has taken so far, in clock ticks. */
const processTicks = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return Number(fields[11]) + Number(fields[12])
}

const ticksPerSecond = 100

/** Looks at a process in the second half of its run, when it has started and not yet stopped. */
const watchCpu = (seconds: number): { readonly start: (pid: number) => void; readonly percent: () => number } => {
  let percent = Number.NaN
  const start = (pid: number) => {
    setTimeout(
      () => {
        const begin = { ticks: processTicks(pid), at: performance.now() }
        setTimeout(() => {
          const ticks = processTicks(pid) - begin.ticks
          percent = ((ticks / ticksPerSecond) * 100_000) / (performance.now() - begin.at)
        }, seconds * 400)
      },
      500 + seconds * 300
    )
  }
  return { start, percent: () => percent }
}

/** Reads the line "Total : IOPS MiB/s Fail/s TO/s Average min max". */
const parse = (output: string): { readonly iops: number; readonly failures: number } => {
  const total = /^\s*Total\s*:\s*([\d.]+)\s+[\d.]+\s+([\d.]+)/m.exec(output)
  if (total === null) throw new Error(`bdevperf printed no total:\n${output}`)
  return { iops: Number(total[1]), failures: Number(total[2]) }
}

const commandLine = (job: BdevperfJob, folder: string, config: string): ReadonlyArray<string> => {
  const place = ["-m", `0x${(1 << reactorCore).toString(16)}`, "--disable-cpumask-locks"]
  const environment = ["--no-huge", "-s", String(memoryMiB), "-u", "-r", join(folder, "rpc.sock"), "-c", config]
  const load = [
    "-q",
    String(job.depth),
    "-o",
    String(job.ioBytes),
    "-w",
    `rand${job.operation ?? "read"}`,
    "-t",
    String(job.seconds)
  ]
  return [...place, ...environment, ...load]
}

export const measure = async (job: BdevperfJob): Promise<Outcome> => {
  if (program === undefined) throw new Error(whereLooked)
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-bench-"))
  const cpu = watchCpu(job.seconds)
  try {
    const config = join(folder, "bdev.json")
    writeFileSync(config, JSON.stringify(configuration(job)))
    const { stdout, stderr } = await run(program, commandLine(job, folder, config), {
      limitMillis: job.seconds * 1000 + startAndStopMillis,
      onSpawn: cpu.start
    })
    const { failures, iops } = parse(stdout + stderr)
    if (failures > 0) throw new Error(`bdevperf had ${failures} failed requests a second`)
    return { ...throughput(iops * job.seconds, job.seconds, job.depth, job.ioBytes), cpuPercent: cpu.percent() }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** "SPDK v26.05 ..." as bdevperf tells it. */
export const version = async (): Promise<string | undefined> => {
  if (program === undefined) return undefined
  const { stdout, stderr } = await run(program, ["-v"], { limitMillis: startAndStopMillis })
  return /SPDK v\S+/.exec(stdout + stderr)?.[0]
}
