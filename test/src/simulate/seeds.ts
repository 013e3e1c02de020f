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
  { seed: 2384, work: "fabrics", found: "the simulation read before the host knew that its volume was back" }
]
