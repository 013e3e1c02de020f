/** The measured process: one job in, one line of JSON out. */
import * as Effect from "effect/Effect"
import { type Job, type LibspdkStatus, type Outcome, outcome } from "./Job.ts"
import { allocations } from "./jobs/allocations.ts"
import { batched } from "./jobs/batched.ts"
import { blobClusters } from "./jobs/blobClusters.ts"
import { blobFibers } from "./jobs/blobFibers.ts"
import { blobImage, blobLoad } from "./jobs/blobLoad.ts"
import { blobMemory } from "./jobs/blobMemory.ts"
import { blobSequential } from "./jobs/blobSequential.ts"
import { fibers } from "./jobs/fibers.ts"
import { idle } from "./jobs/idle.ts"
import { nodeFs } from "./jobs/nodeFs.ts"
import { nvmfHost } from "./jobs/nvmfHost.ts"
import { nvmfServe } from "./jobs/nvmfServe.ts"
import { raw } from "./jobs/raw.ts"
import { status } from "./jobs/status.ts"

const perform = (job: Job | { readonly kind: "status" }): Effect.Effect<Outcome | LibspdkStatus, unknown> => {
  switch (job.kind) {
    case "status":
      return status
    case "raw":
      return raw(job)
    case "fibers":
      return fibers(job)
    case "batched":
      return batched(job)
    case "idle":
      return idle(job)
    case "allocations":
      return allocations(job)
    case "node-fs":
      return nodeFs(job)
    case "blob-fibers":
      return blobFibers(job)
    case "blob-image":
      return blobImage(job)
    case "blob-load":
      return blobLoad(job)
    case "blob-clusters":
      return blobClusters(job)
    case "blob-memory":
      return blobMemory(job)
    case "blob-sequential":
      return blobSequential(job)
    case "nvmf-serve":
      return Effect.as(nvmfServe(job), outcome({}))
    case "nvmf-host":
      return nvmfHost(job)
    case "bdevperf":
    case "nvmf-target":
      return Effect.die("it is a program of its own that measures")
  }
}

// The parent is this package's measure.ts, which sends nothing but jobs.
const job = JSON.parse(process.argv[2] ?? "") as Job
const answer = await Effect.runPromise(perform(job))
process.stdout.write(`${JSON.stringify(answer)}\n`)
