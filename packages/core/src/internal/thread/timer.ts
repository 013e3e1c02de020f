/**
 * Waiting on an SpdkThread's own timers.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { NoMemory, type NotSupported, type Released, SpdkError } from "../../SpdkError.ts"
import type { Engine, EngineThread } from "../engine/engine.ts"
import { currentEngineThread, releasedThread, remoteHasNoQueue } from "./thread.ts"

/** Why a thread's timer does not serve. */
export type TimerError = SpdkError<NoMemory | NotSupported | Released>

/**
 * Sleeps on the thread that the fiber is on. Fails with Released when that thread goes away. Interruption aborts the
 * timer and waits until the thread has let go of it.
 */
export const sleep = (engine: Engine, operation: string, delay: Duration.Duration): Effect.Effect<void, TimerError> => {
  if (!Duration.isFinite(delay)) return Effect.never
  const micros = Math.min(Math.max(0, Math.ceil(Duration.toMicros(delay))), Number.MAX_SAFE_INTEGER)
  return Effect.flatMap(currentEngineThread(engine, operation), (thread): Effect.Effect<void, TimerError> => {
    if (engine.kind === "remote") return Effect.fail(remoteHasNoQueue(engine, operation))
    return Effect.callback<void, TimerError>((resume) => {
      let status: number | undefined
      let onCompletion = () => resume(status === 0 ? Effect.void : Effect.fail(refusal(operation, thread, status)))
      entry.opcode = Opcode.Timer
      entry.offsetBlocks = micros
      const complete = (_index: number, result: number) => {
        status = result
        onCompletion()
      }
      const id = thread.queue.submit(entry, { complete }, 0)
      return Effect.suspend(() => {
        if (status === undefined) thread.queue.abort(id)
        return Effect.callback<void>((letGo) => {
          onCompletion = () => letGo(Effect.void)
          if (status !== undefined) onCompletion()
        })
      })
    })
  })
}

const enomem = -12

/** Nobody else aborts it, so that what is not a lack of memory is the end of the thread. */
const refusal = (operation: string, thread: EngineThread, status: number | undefined): TimerError =>
  status === enomem
    ? new SpdkError({ reason: new NoMemory({ operation, resource: thread.name }) })
    : releasedThread(operation, thread)

// One for all, because a queue copies what it is given.
const entry = makeEntry()
