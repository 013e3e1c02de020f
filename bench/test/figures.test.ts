/** The arithmetic behind the table: it must be right before any figure is. */
import { describe, expect, it } from "vitest"
import type { Case } from "../src/Case.ts"
import { cases, needs } from "../src/Case.ts"
import { throughput } from "../src/Job.ts"
import { makeOffsets } from "../src/jobs/window.ts"
import { judge, type Row } from "../src/Row.ts"
import { median } from "../src/statistics.ts"

const all = cases(1, { type: "file", path: "bench.img", sizeBytes: 4096 })

const caseOf = (id: string): Case => {
  const found = all.find((other) => other.id === id)
  if (found === undefined) throw new Error(`no case ${id}`)
  return found
}

const row = (id: string, fields: Partial<Row>): Row => ({
  id,
  value: 1,
  unit: "IO/s",
  peer: "bdevperf",
  peerValue: 1,
  ratio: 1,
  ...fields
})

describe("bench", () => {
  it("takes the middle of odd and of even numbers of runs, in any order", () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([10, 1, 2, 3])).toBe(2.5)
  })

  it("judges a ratio by what the case requires", () => {
    expect(judge(caseOf("raw-4k-qd32"), row("raw-4k-qd32", { ratio: 0.9 })).passed).toBe(true)
    expect(judge(caseOf("raw-4k-qd32"), row("raw-4k-qd32", { ratio: 0.89 })).passed).toBe(false)
    expect(judge(caseOf("effect-4k-qd1-latency"), row("effect-4k-qd1-latency", { ratio: 4.1 })).passed).toBe(false)
    expect(judge(caseOf("effect-4k-128"), row("effect-4k-128", { ratio: 0.1 })).passed).toBeUndefined()
  })

  it("judges the value itself where there is no peer", () => {
    const alone = { peer: null, peerValue: null, ratio: null }
    expect(judge(caseOf("allocations-4k-32"), row("allocations-4k-32", { ...alone, value: 0 })).passed).toBe(true)
    expect(judge(caseOf("allocations-4k-32"), row("allocations-4k-32", { ...alone, value: 0.001 })).passed).toBe(false)
  })

  it("gives every case an id of its own, and embedded cases beside node:fs need nothing installed", () => {
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length)
    const embeddedFile = caseOf("embedded-file-4k-32")
    expect([needs(embeddedFile.subject), needs(embeddedFile.peer)]).toEqual([[], []])
    expect([needs(caseOf("raw-4k-qd32").subject), needs(caseOf("raw-4k-qd32").peer)]).toEqual([
      ["libspdk"],
      ["bdevperf"]
    ])
    const host = caseOf("host-embedded-4k-32")
    expect([needs(host.subject), needs(host.peer)]).toEqual([["nvmf programs"], ["nvmf programs"]])
  })

  it("draws offsets that are aligned, in range, and cover the device", () => {
    const next = makeOffsets(16 * 4096, 4096, 7)
    const drawn = Array.from({ length: 1000 }, next)
    expect(drawn.every((offset) => offset % 4096 === 0 && offset >= 0 && offset < 16 * 4096)).toBe(true)
    expect(new Set(drawn).size).toBe(16)
  })

  it("derives latency from throughput and depth", () => {
    const { bytesPerSecond, iops, meanMicros } = throughput(1000, 2, 4, 4096)
    expect([iops, bytesPerSecond, meanMicros]).toEqual([500, 2_048_000, 8000])
  })
})
