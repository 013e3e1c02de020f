/** The stretch of time over which a job counts. */
import * as Effect from "effect/Effect"

/** Long enough for V8 to compile the path that is measured. */
const warmUpMillis = 800

/** What a running load keeps up to date. */
export interface Load {
  operations: number
  running: boolean
}

export const makeLoad = (): Load => ({ operations: 0, running: true })

export interface Window {
  readonly operations: number
  readonly seconds: number
}

/**
 * Lets a load run: warms up, counts for so many seconds, and stops it. `mark` is called when counting begins and when
 * it ends.
 */
export const measureLoad = (
  load: Load,
  seconds: number,
  mark: (at: "begin" | "end") => void = () => {}
): Effect.Effect<Window> =>
  Effect.gen(function* () {
    yield* Effect.sleep(warmUpMillis)
    mark("begin")
    const begin = { operations: load.operations, at: performance.now() }
    yield* Effect.sleep(seconds * 1000)
    const window = { operations: load.operations - begin.operations, seconds: (performance.now() - begin.at) / 1000 }
    mark("end")
    load.running = false
    return window
  })

/**
 * Random multiples of `step` below `size`, in whatever unit both are: xorshift, the same for every run. The state is
 * scaled rather than divided, because a remainder of numbers above 2^31 would be the slowest part of a read.
 */
export const makeOffsets = (size: number, step: number, seed: number): (() => number) => {
  const scale = Math.floor(size / step) / 2 ** 32
  let state = (seed * 2_654_435_761) >>> 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return Math.floor((state >>> 0) * scale) * step
  }
}
