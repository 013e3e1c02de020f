/** Node's own way to read a file at random places: so many loops of `FileHandle.read`. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type FileHandle, open } from "node:fs/promises"
import { type Job, throughput } from "../Job.ts"
import { type Load, makeLoad, makeOffsets, measureLoad } from "./window.ts"

const readLoop = async (file: FileHandle, nextOffset: () => number, ioBytes: number, load: Load): Promise<void> => {
  const buffer = new Uint8Array(ioBytes)
  while (load.running) {
    const { bytesRead } = await file.read(buffer, 0, ioBytes, nextOffset())
    if (bytesRead !== ioBytes) throw new Error(`read ${bytesRead} bytes of ${ioBytes}`)
    load.operations++
  }
}

export const nodeFs = (job: Job & { readonly kind: "node-fs" }) =>
  Effect.gen(function* () {
    const file = yield* Effect.acquireRelease(
      Effect.promise(() => open(job.path, "r")),
      (opened) => Effect.promise(() => opened.close())
    )
    const load = makeLoad()
    const loops = Array.from({ length: job.depth }, (_, index) =>
      readLoop(file, makeOffsets(job.sizeBytes, job.ioBytes, index + 1), job.ioBytes, load)
    )
    const all = yield* Effect.forkScoped(Effect.promise(() => Promise.all(loops)))
    const { operations, seconds } = yield* measureLoad(load, job.seconds)
    yield* Fiber.join(all)
    return throughput(operations, seconds, job.depth, job.ioBytes)
  }).pipe(Effect.scoped)
