/** Hands a job to a process of its own and reads its outcome. */
import { fileURLToPath } from "node:url"
import * as Allocations from "./Allocations.ts"
import * as Bdevperf from "./Bdevperf.ts"
import * as NvmfTarget from "./NvmfTarget.ts"
import type { Job, LibspdkStatus, Outcome } from "./Job.ts"
import { runNode } from "./spawn.ts"

const child = fileURLToPath(new URL("./child.js", import.meta.url))

/** Start of the engine, warm-up, idle time and release. */
const allowanceMillis = 40_000

/** Making, and loading, a hundred thousand blobs on a busy machine. */
const manyBlobsSeconds = 200

const lastJsonLine = (stdout: string): unknown => JSON.parse(stdout.trim().split("\n").at(-1) ?? "")

const askChild = async (question: unknown, seconds: number, env: Readonly<Record<string, string>> = {}) => {
  const limitMillis = seconds * 1000 + allowanceMillis
  return lastJsonLine((await runNode(child, [JSON.stringify(question)], { limitMillis, env })).stdout)
}

export const measure = async (job: Job): Promise<Outcome> => {
  switch (job.kind) {
    case "bdevperf":
      return await Bdevperf.measure(job)
    case "nvmf-target":
      return await NvmfTarget.measure(job)
    case "nvmf-host":
      return await NvmfTarget.withTarget(
        "nvmf_tgt",
        job.sizeBytes,
        async (address) => (await askChild({ ...job, address }, job.seconds)) as Outcome
      )
    case "idle":
      return (await askChild(job, 0)) as Outcome
    case "allocations":
      return await Allocations.withCounter(async (env) => (await askChild(job, job.seconds, env)) as Outcome)
    case "blob-image":
    case "blob-load":
      return (await askChild(job, manyBlobsSeconds)) as Outcome
    default:
      return (await askChild(job, "seconds" in job ? job.seconds : 0)) as Outcome
  }
}

export const libspdkStatus = async (): Promise<LibspdkStatus> =>
  (await askChild({ kind: "status" }, 0)) as LibspdkStatus
