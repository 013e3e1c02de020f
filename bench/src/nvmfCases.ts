/** NVMe over TCP on loopback: our targets and hosts beside SPDK's, which run on the same cores. */
import type { Case, Metric } from "./Case.ts"
import type { Engine } from "./Job.ts"

const sizeBytes = 64 * 2 ** 20

export const nvmfCases = (seconds: number): ReadonlyArray<Case> => {
  const target = (
    id: string,
    engine: Engine,
    ioBytes: number,
    depth: number,
    required: Case["required"],
    metric: Metric = "iops"
  ): Case => {
    const load = { kind: "nvmf-target", sizeBytes, ioBytes, depth, seconds } as const
    return {
      id,
      what: `${engine} target, read by spdk_nvme_perf`,
      metric,
      subject: { ...load, target: engine },
      peerName: "nvmf_tgt",
      peer: { ...load, target: "nvmf_tgt" },
      required
    }
  }
  const host = (id: string, engine: Engine, ioBytes: number, depth: number, required: Case["required"]): Case => ({
    id,
    what: `${engine} host, ${depth} fibers, reading from nvmf_tgt`,
    metric: "iops",
    subject: { kind: "nvmf-host", engine, sizeBytes, ioBytes, depth, seconds },
    peerName: "spdk_nvme_perf",
    peer: { kind: "nvmf-target", target: "nvmf_tgt", sizeBytes, ioBytes, depth, seconds },
    required
  })
  return [
    target("nvmf-libspdk-4k-32", "libspdk", 4096, 32, { atLeast: 0.95 }),
    target("nvmf-embedded-4k-32", "embedded", 4096, 32, { atLeast: 0.15 }),
    target("nvmf-embedded-128k-32", "embedded", 131072, 32, { atLeast: 0.4 }, "bytesPerSecond"),
    host("host-libspdk-4k-32", "libspdk", 4096, 32, { atLeast: 0.75 }),
    host("host-embedded-4k-32", "embedded", 4096, 32, { atLeast: 0.15 })
  ]
}
