/** A progress bar on standard error where that is a terminal, and nothing anywhere else. */
import cliProgress from "cli-progress"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface Progress {
  /** Adds to what is done. Cheap enough to be called for every chunk. */
  readonly add: (bytes: number) => void
}

const silent: Progress = { add: () => {} }

/** Shows a bar until the scope closes, which also gives the cursor back. */
export const make = (label: string, totalBytes: number): Effect.Effect<Progress, never, Scope.Scope> => {
  if (!process.stderr.isTTY || totalBytes === 0) return Effect.succeed(silent)
  return Effect.acquireRelease(
    Effect.sync(() => {
      const bar = new cliProgress.SingleBar({
        format: `${label} [{bar}] {percentage}% of ${(totalBytes / 2 ** 20).toFixed(1)} MiB, {duration_formatted}`,
        stream: process.stderr,
        clearOnComplete: true,
        hideCursor: true,
        gracefulExit: false
      })
      bar.start(totalBytes, 0)
      return bar
    }),
    (bar) => Effect.sync(() => bar.stop())
  ).pipe(Effect.map((bar) => ({ add: (bytes: number) => bar.increment(bytes) })))
}
