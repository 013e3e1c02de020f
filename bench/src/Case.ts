/** The comparisons, by id. */
import { blobCases } from "./blobCases.ts"
import { nvmfCases } from "./nvmfCases.ts"
import type { BdevSpec, Job, Outcome } from "./Job.ts"

const mebibyte = 2 ** 20

export type Metric =
  | "iops"
  | "bytesPerSecond"
  | "meanMicros"
  | "cpuPercent"
  | "allocationsPerIo"
  | "javaScriptAllocationsPerIo"
  | "millis"
  | "bytesPerBlob"

export const units: Readonly<Record<Metric, string>> = {
  iops: "IO/s",
  bytesPerSecond: "B/s",
  meanMicros: "µs",
  cpuPercent: "% of a core",
  allocationsPerIo: "allocations/IO",
  javaScriptAllocationsPerIo: "allocations/IO",
  millis: "ms",
  bytesPerBlob: "B/blob"
}

export interface Case {
  readonly id: string
  readonly what: string
  readonly metric: Metric
  readonly subject: Job
  readonly peerName: string
  readonly peer: Job | undefined
  /** Runs once before the first turn. */
  readonly prepare?: Job
  /** What the ratio of ours to the peer's must be, or ours alone where there is no peer. */
  readonly required: { readonly atLeast: number } | { readonly atMost: number } | undefined
}

export const pick = (metric: Metric, outcome: Outcome): number => outcome[metric]

const malloc64: BdevSpec = { type: "malloc", sizeBytes: 64 * mebibyte }
const malloc1: BdevSpec = { type: "malloc", sizeBytes: mebibyte }
const nullBdev: BdevSpec = { type: "null", sizeBytes: 1024 * mebibyte }

interface Reads {
  readonly bdev: BdevSpec
  readonly ioBytes: number
  readonly depth: number
}

const reads = (bdev: BdevSpec, ioBytes: number, depth: number): Reads => ({ bdev, ioBytes, depth })

/** A case against bdevperf with the same device, size and depth. */
const besideBdevperf =
  (seconds: number) =>
  (
    id: string,
    what: string,
    kind: "raw" | "fibers" | "batched",
    load: Reads,
    required: Case["required"],
    metric: Metric = "iops"
  ): Case => ({
    id,
    what,
    metric,
    required,
    subject: kind === "fibers" ? { kind, engine: "libspdk", ...load, seconds } : { kind, ...load, seconds },
    peerName: "bdevperf",
    peer: { kind: "bdevperf", ...load, seconds }
  })

const spdkCases = (seconds: number): ReadonlyArray<Case> => {
  const make = besideBdevperf(seconds)
  return [
    make("raw-4k-qd32", "raw ring, malloc 64 MiB", "raw", reads(malloc64, 4096, 32), { atLeast: 0.9 }),
    make("raw-4k-qd1", "raw ring, one request, mean latency", "raw", reads(malloc64, 4096, 1), undefined, "meanMicros"),
    make("raw-128k-qd32", "raw ring, 128 KiB", "raw", reads(malloc64, 131072, 32), undefined, "bytesPerSecond"),
    make("raw-4k-qd32-1m", "raw ring, malloc 1 MiB", "raw", reads(malloc1, 4096, 32), undefined),
    make("effect-4k-32", "Effect API, 32 fibers", "fibers", reads(malloc64, 4096, 32), { atLeast: 0.75 }),
    make("effect-4k-128", "Effect API, 128 fibers", "fibers", reads(malloc64, 4096, 128), undefined),
    make("effect-4k-32-1m", "Effect API, 32 fibers, malloc 1 MiB", "fibers", reads(malloc1, 4096, 32), undefined),
    make(
      "effect-128k-32",
      "Effect API, 128 KiB, 32 fibers",
      "fibers",
      reads(malloc64, 131072, 32),
      { atLeast: 0.95 },
      "bytesPerSecond"
    ),
    make(
      "effect-4k-qd1-latency",
      "Effect API, one fiber, mean latency",
      "fibers",
      reads(malloc64, 4096, 1),
      { atMost: 4 },
      "meanMicros"
    ),
    make("batched-4k-32", "batched API, malloc 64 MiB", "batched", reads(malloc64, 4096, 32), undefined),
    make("batched-4k-128", "batched API, malloc 64 MiB", "batched", reads(malloc64, 4096, 128), undefined),
    make("null-raw", "raw ring, null bdev", "raw", reads(nullBdev, 4096, 128), { atLeast: 0.6 }),
    make("null-effect-128", "Effect API, 128 fibers, null bdev", "fibers", reads(nullBdev, 4096, 128), undefined),
    make("null-batched", "batched API, null bdev", "batched", reads(nullBdev, 4096, 128), { atLeast: 0.6 }),
    {
      id: "idle-cpu",
      what: "two seconds after the last I/O, adaptive",
      metric: "cpuPercent",
      subject: { kind: "idle", polling: "adaptive" },
      peerName: "bdevperf",
      peer: { kind: "bdevperf", ...reads(malloc64, 4096, 1), seconds: Math.max(seconds, 2) },
      required: { atMost: 0.05 }
    },
    {
      id: "allocations-4k-32",
      what: "heap allocations on the reactor, per I/O",
      metric: "allocationsPerIo",
      subject: { kind: "allocations", ...reads(malloc64, 4096, 32), seconds },
      peerName: "",
      peer: undefined,
      required: { atMost: 0 }
    },
    {
      id: "allocations-js-4k-32",
      what: "heap allocations on the JavaScript thread, per I/O",
      metric: "javaScriptAllocationsPerIo",
      subject: { kind: "allocations", ...reads(malloc64, 4096, 32), seconds },
      peerName: "",
      peer: undefined,
      required: undefined
    }
  ]
}

const embeddedCases = (seconds: number, file: BdevSpec & { readonly type: "file" }): ReadonlyArray<Case> => [
  {
    id: "embedded-malloc-4k-32",
    what: "embedded, Effect API, 32 fibers",
    metric: "iops",
    subject: { kind: "fibers", engine: "embedded", ...reads(malloc64, 4096, 32), seconds },
    peerName: "effect-4k-32",
    peer: { kind: "fibers", engine: "libspdk", ...reads(malloc64, 4096, 32), seconds },
    required: { atLeast: 0.5 }
  },
  {
    id: "embedded-file-4k-32",
    what: "embedded file bdev, 32 fibers",
    metric: "iops",
    subject: { kind: "fibers", engine: "embedded", ...reads(file, 4096, 32), seconds },
    peerName: "fs.promises",
    peer: { kind: "node-fs", path: file.path, sizeBytes: file.sizeBytes, ioBytes: 4096, depth: 32, seconds },
    required: { atLeast: 1.5 }
  },
  {
    id: "libspdk-file-4k-32",
    what: "libspdk file bdev (aio), 32 fibers",
    metric: "iops",
    subject: { kind: "fibers", engine: "libspdk", ...reads(file, 4096, 32), seconds },
    peerName: "fs.promises",
    peer: { kind: "node-fs", path: file.path, sizeBytes: file.sizeBytes, ioBytes: 4096, depth: 32, seconds },
    required: undefined
  }
]

/** All cases, for measurements of so many seconds, with the file that file bdevs are made of. */
export const cases = (seconds: number, file: BdevSpec & { readonly type: "file" }): ReadonlyArray<Case> => [
  ...spdkCases(seconds),
  ...embeddedCases(seconds, file),
  ...blobCases(seconds, file.path),
  ...nvmfCases(seconds)
]

/** What must be installed for a job. */
export const needs = (job: Job | undefined): ReadonlyArray<"libspdk" | "bdevperf" | "nvmf programs"> => {
  if (job === undefined) return []
  switch (job.kind) {
    case "node-fs":
    case "blob-image":
      return []
    case "bdevperf":
      return ["bdevperf"]
    case "nvmf-target":
      return job.target === "libspdk" ? ["libspdk", "nvmf programs"] : ["nvmf programs"]
    case "nvmf-host":
      return job.engine === "libspdk" ? ["libspdk", "nvmf programs"] : ["nvmf programs"]
    default:
      return "engine" in job && job.engine === "embedded" ? [] : ["libspdk"]
  }
}
