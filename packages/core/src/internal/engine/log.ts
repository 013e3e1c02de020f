/**
 * SPDK's log on its way to Effect's Logger. The engine hands over batches and never waits; a fiber of the layer logs
 * them with the layer's loggers. What does not fit in between is counted, and the count is logged.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as LogLevel from "effect/LogLevel"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { LogLine, OnLog } from "./options.ts"

const capacityLines = 1024

const severities: Record<LogLine["level"], LogLevel.Severity> = {
  error: "Error",
  warning: "Warn",
  notice: "Info",
  info: "Debug",
  debug: "Trace"
}

/** Logs until the scope closes, and what has arrived by then. */
export const makeLogSink: Effect.Effect<OnLog, never, Scope.Scope> = Effect.gen(function* () {
  const queue = yield* Queue.dropping<LogLine, Cause.Done>(capacityLines)
  let droppedLines = 0
  const reportDropped = Effect.suspend(() => {
    if (droppedLines === 0) return Effect.void
    const count = droppedLines
    droppedLines = 0
    return Effect.logWarning(`${count} lines of SPDK's log were dropped`)
  })
  const drain = Queue.takeAll(queue).pipe(
    Effect.flatMap((lines) => Effect.forEach(lines, logLine, { discard: true })),
    Effect.andThen(reportDropped),
    Effect.forever,
    // The queue's end.
    Effect.catch(() => reportDropped)
  )
  const fiber = yield* Effect.forkScoped(drain)
  yield* Effect.addFinalizer(() => Effect.andThen(Queue.end(queue), Fiber.await(fiber)))
  return (batch, droppedByEngine = 0) => {
    droppedLines += droppedByEngine
    for (const line of batch) {
      if (!Queue.offerUnsafe(queue, line)) droppedLines++
    }
  }
})

const logLine = (line: LogLine): Effect.Effect<void> =>
  Effect.logWithLevel(severities[line.level])(line.message.trimEnd()).pipe(
    // DPDK's lines have no source.
    line.file === ""
      ? Effect.annotateLogs("spdk.source", "DPDK")
      : Effect.annotateLogs({ "spdk.source": `${line.file}:${line.line}`, "spdk.function": line.function })
  )
