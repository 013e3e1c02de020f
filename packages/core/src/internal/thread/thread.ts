/**
 * What an SpdkThread holds behind its face, and how the rest of the package gets at the engine's thread.
 *
 * Code that runs per I/O reads the current thread with `fiber.getRef(CurrentThread)` and turns it into the
 * engine's by `engineThreadOf`, which costs a comparison.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { NotSupported, Released, SpdkError } from "../../SpdkError.ts"
import type { SpdkThread } from "../../SpdkThread.ts"
import type { Engine, EngineThread } from "../engine/engine.ts"
import { threadStats } from "../engine/framework.ts"

export const TypeId = "~@effect-spdk/core/SpdkThread"

/** Why a message does not cross. */
export type CrossError = SpdkError<Released | NotSupported>

export interface ThreadState {
  readonly engine: Engine
  readonly engineThread: EngineThread
  /** The effects that `send` started. */
  readonly fibers: FiberSet.FiberSet<void>
  /** What wants to know of the release. */
  readonly watchers: Set<() => void>
  released: boolean
}

interface ThreadImpl extends SpdkThread {
  readonly state: ThreadState
}

/** The thread that a fiber is on; undefined is the engine's main thread. */
export const CurrentThread: Context.Reference<SpdkThread | undefined> = Context.Reference<SpdkThread | undefined>(
  "@effect-spdk/core/SpdkThread/CurrentThread",
  { defaultValue: () => undefined }
)

// `makeThread` below makes every SpdkThread there is.
const stateOf = (thread: SpdkThread): ThreadState => (thread as ThreadImpl).state

/**
 * The engine's thread for the value of `CurrentThread`. Undefined once that thread is released, and for a thread
 * of another engine.
 */
export const engineThreadOf = (engine: Engine, current: SpdkThread | undefined): EngineThread | undefined => {
  if (current === undefined) return engine.mainThread
  const state = stateOf(current)
  return state.released || state.engine !== engine ? undefined : state.engineThread
}

/** The engine's thread that the fiber is on, or Released. For the control plane. */
export const currentEngineThread = (
  engine: Engine,
  operation: string
): Effect.Effect<EngineThread, SpdkError<Released>> =>
  Effect.flatMap(CurrentThread, (current) => {
    const thread = engineThreadOf(engine, current)
    return thread === undefined ? Effect.fail(releasedThread(operation, current)) : Effect.succeed(thread)
  })

export const releasedThread = (operation: string, thread: { readonly name: string } | undefined): SpdkError<Released> =>
  new SpdkError({ reason: new Released({ operation, resource: thread?.name, what: "thread" }) })

export const remoteHasNoQueue = (engine: Engine, operation: string): SpdkError<NotSupported> =>
  new SpdkError({ reason: new NotSupported({ operation, resource: engine.kind, detail: engine.description }) })

/**
 * Runs `onRelease` once when the thread that the fiber is on is released before the scope closes. The engine's main
 * thread is never released under anybody.
 */
export const watchRelease = (onRelease: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(CurrentThread, (current) => {
    if (current === undefined) return Effect.void
    const { watchers } = stateOf(current)
    return Effect.acquireRelease(
      Effect.sync(() => watchers.add(onRelease)),
      () => Effect.sync(() => watchers.delete(onRelease))
    )
  })

/**
 * The public face of an engine's thread. When the scope closes, the thread is released first, then the effects
 * that `send` started are interrupted and awaited; whatever was in the scope before, the engine's own release of
 * the thread above all, comes after that.
 */
export const makeThread = Effect.fnUntraced(function* (
  engine: Engine,
  engineThread: EngineThread
): Effect.fn.Return<SpdkThread, never, Scope.Scope> {
  const fibers = yield* FiberSet.make<void>()
  const state: ThreadState = { engine, engineThread, fibers, watchers: new Set(), released: false }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      state.released = true
      for (const onRelease of state.watchers) onRelease()
    })
  )
  const thread: ThreadImpl = {
    [TypeId]: TypeId,
    state,
    id: engineThread.id,
    name: engineThread.name,
    call: (effect) =>
      Effect.flatMap(cross(state, "SpdkThread.call"), () => Effect.provideService(effect, CurrentThread, thread)),
    send: (effect) => send(thread, effect),
    stats: threadStats(engine.rpc, engineThread)
  }
  return thread
})

/** Resumes on the thread. Messages arrive in the order in which they were submitted. */
const cross = (state: ThreadState, operation: string): Effect.Effect<void, CrossError> =>
  Effect.callback((resume) => {
    submit(state, operation, (error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
  })

const send = <A, R>(thread: ThreadImpl, effect: Effect.Effect<A, never, R>): Effect.Effect<void, CrossError, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.suspend(() => {
      const { state } = thread
      let refused: CrossError | undefined
      const run = effect.pipe(
        Effect.asVoid,
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : Effect.logError("A message to an SpdkThread died", cause).pipe(Effect.annotateLogs("thread", thread.name))
        ),
        Effect.provideService(CurrentThread, thread)
      )
      submit(state, "SpdkThread.send", (error) => {
        refused = error
        if (error !== undefined) return
        // Known to the thread before its first step, which may let others run, and they may close the thread.
        const gate = Deferred.makeUnsafe<void>()
        FiberSet.addUnsafe(state.fibers, Effect.runForkWith(context)(Effect.andThen(Deferred.await(gate), run)))
        Deferred.doneUnsafe(gate, Effect.void)
      })
      return refused === undefined ? Effect.void : Effect.fail(refused)
    })
  )

/** Runs on the JS thread. `onArrival` runs at once when there is no queue to submit to, otherwise in a drain of it. */
const submit = (state: ThreadState, operation: string, onArrival: (error: CrossError | undefined) => void): void => {
  const { engine, engineThread } = state
  const released = () => releasedThread(operation, engineThread)
  if (state.released) return onArrival(released())
  if (engine.kind === "remote") return onArrival(remoteHasNoQueue(engine, operation))
  message.opcode = Opcode.Nop
  engineThread.queue.submit(
    message,
    // Nothing refuses a Nop but a thread that goes away.
    { complete: (_index, status) => onArrival(status !== 0 || state.released ? released() : undefined) },
    0
  )
}

// One for all, because a queue copies what it is given.
const message = makeEntry()
