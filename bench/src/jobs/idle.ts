/** What an engine costs that has worked and now waits: processor time of the whole process. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type Job, outcome } from "../Job.ts"
import { engineLayer, openBdev } from "./device.ts"
import { startReaders } from "./fibers.ts"
import { makeLoad, measureLoad } from "./window.ts"

const idleBeforeMillis = 2000
const watchedMillis = 2000

export const idle = (job: Job & { readonly kind: "idle" }) =>
  Effect.gen(function* () {
    const bdev = yield* openBdev({ type: "malloc", sizeBytes: 64 * 2 ** 20 })
    const load = makeLoad()
    const readers = yield* startReaders(bdev, 4096, 32, load)
    yield* measureLoad(load, 0.2)
    yield* Fiber.join(readers)
    yield* Effect.sleep(idleBeforeMillis)
    const begin = { usage: process.cpuUsage(), at: performance.now() }
    yield* Effect.sleep(watchedMillis)
    const { system, user } = process.cpuUsage(begin.usage)
    return outcome({ cpuPercent: ((user + system) / 1000 / (performance.now() - begin.at)) * 100 })
  }).pipe(Effect.scoped, Effect.provide(engineLayer("libspdk", { polling: job.polling })))
