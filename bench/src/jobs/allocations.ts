/** Counts what the heap gives out while 32 fibers read: on the reactors, and on the JavaScript thread. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Allocations from "../Allocations.ts"
import { type Job, outcome } from "../Job.ts"
import { engineLayer, openBdev } from "./device.ts"
import { startReaders } from "./fibers.ts"
import { makeLoad, measureLoad } from "./window.ts"

/** SPDK names the threads of its reactors after their cores. */
const isReactor = (thread: Allocations.ThreadCount): boolean => thread.name.startsWith("reactor")
const isJavaScript = (thread: Allocations.ThreadCount): boolean => thread.threadId === process.pid

const total = (
  threads: ReadonlyArray<Allocations.ThreadCount>,
  select: (thread: Allocations.ThreadCount) => boolean
): number => threads.filter(select).reduce((sum, thread) => sum + thread.allocations, 0)

export const allocations = (job: Job & { readonly kind: "allocations" }) =>
  Effect.gen(function* () {
    const bdev = yield* openBdev(job.bdev)
    const load = makeLoad()
    const readers = yield* startReaders(bdev, job.ioBytes, job.depth, load)
    const counts: Array<ReadonlyArray<Allocations.ThreadCount>> = []
    const { operations } = yield* measureLoad(load, job.seconds, () => counts.push(Allocations.read()))
    yield* Fiber.join(readers)
    const [begin = [], end = []] = counts
    if (!end.some(isReactor)) return yield* Effect.die(new Error("no reactor thread was counted"))
    const perIo = (select: (thread: Allocations.ThreadCount) => boolean) =>
      (total(end, select) - total(begin, select)) / operations
    return outcome({ allocationsPerIo: perIo(isReactor), javaScriptAllocationsPerIo: perIo(isJavaScript) })
  }).pipe(Effect.scoped, Effect.provide(engineLayer("libspdk")))
