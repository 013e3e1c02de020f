/** Which contract suite of `suites/` runs where. A test compares this with the test files. */

/** Where a suite can run, by what it is about. The name of a run is its engine, and then its driver or its target. */
const families = {
  engines: ["embedded", "libspdk"],
  drivers: ["embedded portable", "libspdk libspdk", "libspdk portable"],
  hosts: ["embedded to nvmf_tgt", "embedded to embedded", "libspdk to nvmf_tgt", "libspdk to embedded"]
} as const

export type Run = (typeof families)[keyof typeof families][number]

export interface Registration {
  readonly runs: ReadonlyArray<Run>
  /** The runs of its family that are left out, and why. */
  readonly leftOut: { readonly [run in Run]?: string }
  /** The suite that runs this one as a part of itself. */
  readonly partOf?: string
}

const on = (family: keyof typeof families, leftOut: Registration["leftOut"] = {}): Registration => ({
  runs: families[family].filter((run) => leftOut[run] === undefined),
  leftOut
})

const partOf = (suite: string): Registration => ({ runs: [], leftOut: {}, partOf: suite })

export const registry: Readonly<Record<string, Registration>> = {
  bdevBadInput: on("engines"),
  bdevBatch: on("engines"),
  bdevClosing: on("engines"),
  bdevFileLock: on("engines"),
  bdevInterruption: on("engines"),
  bdevIo: on("engines"),
  bdevLifecycle: on("engines"),
  bdevModel: on("engines"),
  bdevModules: on("engines"),
  bdevOptions: on("engines"),
  bdevPool: on("engines"),
  bdevSoak: on("engines"),
  bdevStream: on("engines"),
  blobBadInput: on("drivers"),
  blobClaims: on("drivers"),
  blobDegraded: on("drivers"),
  blobExternals: on("drivers"),
  blobFailStop: on("drivers"),
  blobInterruption: on("drivers"),
  blobIo: on("drivers"),
  blobMetadata: on("drivers"),
  blobModel: on("drivers"),
  blobRounds: on("engines"),
  blobSnapshots: on("drivers"),
  blobSteps: on("drivers"),
  blobStore: on("drivers"),
  blobStress: on("drivers"),
  blobSweep: on("engines", {
    embedded:
      "both drivers load each state here; packages/blobstore/test/portableCrash.test.ts sweeps the portable driver alone"
  }),
  blobTrouble: on("drivers"),
  dma: on("engines"),
  keyValue: on("drivers"),
  nvme: on("hosts"),
  nvmeAna: on("hosts"),
  nvmeBadInput: on("hosts", {
    "embedded to embedded": "the host refuses all of it before a target sees it",
    "libspdk to embedded": "the host refuses all of it before a target sees it"
  }),
  nvmeBdev: on("engines"),
  nvmeBdevKeys: partOf("nvmeBdev"),
  nvmeBdevRpc: on("hosts"),
  nvmeFaults: on("hosts"),
  nvmeFlush: on("hosts"),
  nvmeIdentity: on("hosts"),
  nvmeIo: on("hosts"),
  nvmeUnanswered: on("hosts"),
  nvmfConfig: on("engines", { libspdk: "nvmf_tgt, which is libspdk, writes and reads the same configurations here" }),
  nvmfFaults: on("engines"),
  nvmfProcesses: on("engines"),
  nvmfRefusals: on("engines"),
  nvmfTarget: on("engines"),
  nvmfTools: on("engines"),
  poller: on("engines"),
  process: on("engines"),
  queueFuzz: on("engines"),
  rpc: on("engines"),
  rpcAnswers: on("engines", {
    embedded: "the suite starts an embedded engine itself, and compares its answers with libspdk's"
  }),
  savedConfig: on("engines"),
  socket: on("engines"),
  spdk: on("engines"),
  thread: on("engines")
}
