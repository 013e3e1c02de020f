/** Seeds that have failed once: each found a fault, here or in what it simulates, that is mended since. */
import type { SubjectOptions } from "./subject.ts"

export interface FailedSeed extends SubjectOptions {
  readonly seed: number
  readonly found: string
}

export const failedSeeds: ReadonlyArray<FailedSeed> = [
  { seed: 17, work: "blobs", plain: true, found: "a request of a process that was killed went on in the next" },
  { seed: 40, work: "blobs", plain: true, found: "an id of a deleted blob was used for the next one" },
  { seed: 88, work: "blobs", plain: true, found: "a failed first write to a thin cluster showed in the next blob" },
  { seed: 52, work: "keys", plain: true, found: "a set that came as the committer ended waited for ever" },
  { seed: 278, work: "blobs", plain: true, found: "a flush passed over what a failed write had stored" },
  { seed: 405, work: "blobs", plain: true, found: "a blob that could not be written when it closed" },
  { seed: 6269, plain: true, found: "a deletion that had failed was repeated, and hit the next blob of the id" },
  {
    seed: 1052,
    work: "fabrics",
    fault: "cut",
    found: "a reset that was interrupted left the controller failed for ever"
  },
  {
    seed: 100_371,
    work: "fabrics",
    fault: "stall",
    found: "after a reconnection the host asked for its volumes again, and went on writing meanwhile"
  },
  { seed: 2384, work: "fabrics", found: "the simulation read before the host knew that its volume was back" },
  { seed: 30_001_612, found: "two segments of a key-value store had one number after a failed clear" },
  { seed: 30_006_222, found: "a value whose set had failed came back after a clear" },
  { seed: 30_009_160, found: "a second removal of a key ended before the first was durable" },
  { seed: 30_008_916, found: "a blob took writes after the sync of its read-only flag, which another had written" },
  { seed: 30_008_439, found: "a discovery service did not try again what it could not attach" },
  { seed: 50_000_468, plain: true, found: "a blob that was lost in its deletion was a clone still" },
  { seed: 30_008_382, found: "the simulation took an inflated blob for a thin one" },
  { seed: 30_010_684, found: "the simulation did not know a sector that was read in two halves" },
  { seed: 30_012_185, found: "the simulation forgot changes that were under way when another close failed" },
  { seed: 80_003_227, found: "an interrupted I/O that completed before its fiber went on never ended" },
  { seed: 110_004_728, found: "a simulated disk took writes between its removal and the news of it" }
]
