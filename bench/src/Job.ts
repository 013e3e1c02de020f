/** What one child process measures, and what it hands back. Plain data: it travels as JSON. */

export type BdevSpec =
  | { readonly type: "malloc"; readonly sizeBytes: number }
  | { readonly type: "null"; readonly sizeBytes: number }
  | { readonly type: "file"; readonly path: string; readonly sizeBytes: number }
  /** A sparse file that the job makes. */
  | { readonly type: "new-file"; readonly path: string; readonly sizeBytes: number }
  /** A thick lvol on a malloc bdev of `onLvolBytes`, for bdevperf. */
  | { readonly type: "lvol"; readonly sizeBytes: number; readonly clusterBytes: number }

const mebibyte = 2 ** 20

/** What a bdev must have so that a blob of this size fits on it, with its metadata in clusters of 64 KiB or more. */
export const onLvolBytes = (sizeBytes: number): number =>
  sizeBytes + Math.ceil(sizeBytes / 8 / mebibyte) * mebibyte + 32 * mebibyte

export type Engine = "libspdk" | "embedded"

/** SPDK's target program, or one of our engines. */
export type TargetKind = "nvmf_tgt" | Engine

export interface NvmfAddress {
  readonly traddr: string
  readonly port: number
  readonly nqn: string
}

export type Operation = "read" | "write"

export type Job =
  /** Random reads through the queue of the main thread, no Effect. */
  | {
      readonly kind: "raw"
      readonly bdev: BdevSpec
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Random reads by so many fibers, one `bdev.read` each. */
  | {
      readonly kind: "fibers"
      readonly engine: Engine
      readonly bdev: BdevSpec
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Random reads by two fibers that share the depth in batches. */
  | {
      readonly kind: "batched"
      readonly bdev: BdevSpec
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Processor time of a process that has done I/O and does none any more. */
  | { readonly kind: "idle"; readonly polling: "adaptive" | "busy" }
  /** Heap allocations of a process while it reads. */
  | {
      readonly kind: "allocations"
      readonly bdev: BdevSpec
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Random reads of a file by `FileHandle.read`. */
  | {
      readonly kind: "node-fs"
      readonly path: string
      readonly sizeBytes: number
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Random reads or writes of one thick blob by so many fibers, on a malloc bdev. */
  | {
      readonly kind: "blob-fibers"
      readonly engine: Engine
      readonly operation: Operation
      readonly sizeBytes: number
      readonly clusterBytes: number
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Makes a file with so many empty blobs. Not a measurement. */
  | { readonly kind: "blob-image"; readonly path: string; readonly blobs: number }
  /** Loads it, as it is or as after a crash. */
  | {
      readonly kind: "blob-load"
      readonly engine: Engine
      readonly path: string
      readonly blobs: number
      readonly recover: boolean
    }
  /** First writes to clusters, one after the other: of a thin blob, or of one with a snapshot. */
  | {
      readonly kind: "blob-clusters"
      readonly engine: Engine
      readonly what: "thin" | "copy"
      readonly clusters: number
      readonly clusterBytes: number
    }
  /** Memory of open blobs. */
  | { readonly kind: "blob-memory"; readonly engine: Engine; readonly blobs: number }
  /** Writes a blob on a new file from start to end. */
  | {
      readonly kind: "blob-sequential"
      readonly engine: Engine
      readonly path: string
      readonly sizeBytes: number
      readonly clusterBytes: number
      readonly ioBytes: number
      readonly depth: number
    }
  /** Random reads, by SPDK's own load generator, of a namespace that a target of this kind exports over NVMe/TCP. */
  | {
      readonly kind: "nvmf-target"
      readonly target: TargetKind
      readonly sizeBytes: number
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** Exports a malloc bdev until SIGTERM. Not a measurement. */
  | { readonly kind: "nvmf-serve"; readonly engine: Engine; readonly port: number; readonly sizeBytes: number }
  /** Random reads by so many fibers of a namespace that SPDK's nvmf_tgt exports over NVMe/TCP. */
  | {
      readonly kind: "nvmf-host"
      readonly engine: Engine
      /** Set when the target runs. */
      readonly address?: NvmfAddress
      readonly sizeBytes: number
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }
  /** SPDK's own load generator. Default: random reads. */
  | {
      readonly kind: "bdevperf"
      readonly operation?: Operation
      readonly bdev: BdevSpec
      readonly ioBytes: number
      readonly depth: number
      readonly seconds: number
    }

/** What every job can tell; a case picks its number from it. */
export interface Outcome {
  readonly iops: number
  readonly meanMicros: number
  readonly bytesPerSecond: number
  /** Of one core, of the whole process. */
  readonly cpuPercent: number
  /** On reactor threads. */
  readonly allocationsPerIo: number
  /** On the JavaScript thread, V8's own included. */
  readonly javaScriptAllocationsPerIo: number
  readonly millis: number
  readonly bytesPerBlob: number
}

export const outcome = (fields: Partial<Outcome>): Outcome => ({
  iops: 0,
  meanMicros: 0,
  bytesPerSecond: 0,
  cpuPercent: 0,
  allocationsPerIo: 0,
  javaScriptAllocationsPerIo: 0,
  millis: 0,
  bytesPerBlob: 0,
  ...fields
})

/** From a count of completed reads. */
export const throughput = (operations: number, seconds: number, depth: number, ioBytes: number): Outcome =>
  outcome({
    iops: operations / seconds,
    bytesPerSecond: (operations * ioBytes) / seconds,
    meanMicros: operations === 0 ? 0 : (seconds * 1e6 * depth) / operations
  })

export interface LibspdkStatus {
  readonly description: string
  /** Why libspdk does not start here; left out when it does. */
  readonly missing?: string
}
