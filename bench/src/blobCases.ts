/** The comparisons of blobs. */
import type { Case } from "./Case.ts"
import type { Engine, Job } from "./Job.ts"

const mebibyte = 2 ** 20
const sizeBytes = 64 * mebibyte
/** The default of SPDK's blobstore; lvols of bdevperf get the same. */
const clusterBytes = mebibyte
const ioBytes = 4096
const depth = 32

const manyBlobs = 100_000
const openBlobs = 1000
const firstWrites = 200

const random = (operation: "read" | "write", seconds: number): Case => ({
  id: `blob-${operation}-4k-32`,
  what: `Effect API on a blob, 32 fibers, random ${operation}s`,
  metric: "iops",
  subject: { kind: "blob-fibers", engine: "libspdk", operation, sizeBytes, clusterBytes, ioBytes, depth, seconds },
  peerName: "bdevperf on an lvol",
  peer: { kind: "bdevperf", operation, bdev: { type: "lvol", sizeBytes, clusterBytes }, ioBytes, depth, seconds },
  required: { atLeast: 0.75 }
})

/** On both engines, portable beside libspdk, with nothing required. */
const onBoth = (id: string, what: string, metric: Case["metric"], job: (engine: Engine) => Job): Case => ({
  id,
  what,
  metric,
  subject: job("embedded"),
  peerName: "libspdk",
  peer: job("libspdk"),
  required: undefined
})

const loads = (path: string): ReadonlyArray<Case> => {
  const image = `${path}.blobs`
  const job = (recover: boolean) => (engine: Engine) =>
    ({ kind: "blob-load", engine, path: image, blobs: manyBlobs, recover }) as const
  const prepare = { kind: "blob-image", path: image, blobs: manyBlobs } as const
  return [
    {
      ...onBoth("blob-load-100k", "portable load of 100,000 blobs", "millis", job(false)),
      prepare,
      required: { atMost: 2 }
    },
    { ...onBoth("blob-recover-100k", "the same as after a crash", "millis", job(true)), prepare }
  ]
}

/** `path` is of a file that is there; the cases make their own beside it. */
export const blobCases = (seconds: number, path: string): ReadonlyArray<Case> => [
  random("read", seconds),
  random("write", seconds),
  {
    id: "blob-portable-read-4k-32",
    what: "portable driver on the embedded engine, 32 fibers",
    metric: "iops",
    subject: {
      kind: "blob-fibers",
      engine: "embedded",
      operation: "read",
      sizeBytes,
      clusterBytes,
      ioBytes,
      depth,
      seconds
    },
    peerName: "the bdev itself",
    peer: { kind: "fibers", engine: "embedded", bdev: { type: "malloc", sizeBytes }, ioBytes, depth, seconds },
    required: { atLeast: 0.6 }
  },
  ...loads(path),
  onBoth("blob-thin-first-write", "first write to a cluster of a thin blob", "meanMicros", (engine) => ({
    kind: "blob-clusters",
    engine,
    what: "thin",
    clusters: firstWrites,
    clusterBytes: 65_536
  })),
  onBoth("blob-snapshot-copy", "first write to a cluster after a snapshot, 64 KiB copied", "meanMicros", (engine) => ({
    kind: "blob-clusters",
    engine,
    what: "copy",
    clusters: firstWrites,
    clusterBytes: 65_536
  })),
  onBoth("blob-memory", "memory of an open blob", "bytesPerBlob", (engine) => ({
    kind: "blob-memory",
    engine,
    blobs: openBlobs
  })),
  onBoth("blob-sequential-write", "one blob of 1 GiB on a new file, with sync", "bytesPerSecond", (engine) => ({
    kind: "blob-sequential",
    engine,
    path: `${path}.sequential`,
    sizeBytes: 1024 * mebibyte,
    clusterBytes: 65_536,
    ioBytes: 262_144,
    depth: 16
  }))
]
