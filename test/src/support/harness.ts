/**
 * What the suites share: expecting a typed error, waiting for a condition with a deadline, and the balance sheet
 * that every test ends with.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkError from "@effect-spdk/core/SpdkError"
import { assert, layer as sharedLayer } from "@effect/vitest"
import type { TestContext, Vitest } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { EngineLayer } from "./engines.ts"

export { pattern } from "./bytes.ts"

/** Registers one test: it runs in a scope of its own and must leave the engine's usage exactly as it was. */
export type Check = (
  name: string,
  effect: () => Effect.Effect<void, unknown, Spdk.Services | Scope.Scope>,
  options?: { readonly timeoutMillis?: number }
) => void

/** One engine for all tests of a suite, on the live clock. */
export const contract = (
  name: string,
  engine: EngineLayer,
  tests: (check: Check, it: Vitest.MethodsNonLive<Spdk.Services>) => void
): void =>
  sharedLayer(engine, { excludeTestServices: true, timeout: "60 seconds" })(name, (it) => {
    const check: Check = (title, effect, options) =>
      it.effect(
        title,
        (context) => orSkipped(context, ended(leavesNothing(announced(Effect.suspend(effect))), context.task.timeout)),
        options?.timeoutMillis
      )
    tests(check, it)
  })

/** What a test ends with that this SPDK cannot run. */
class NotHere extends Error {}

/** Ends the test as skipped, with the reason in the report: for what only some versions of SPDK have. */
export const skipTest = (reason: string): Effect.Effect<never> => Effect.die(new NotHere(reason))

const skipReason = (cause: Cause.Cause<unknown>): string | undefined => {
  const defect = Result.getOrElse(Cause.findDefect(cause), () => undefined)
  return defect instanceof NotHere ? defect.message : undefined
}

const orSkipped = <A, E, R>(context: TestContext, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.catchCause(effect, (cause) => {
    const reason = skipReason(cause)
    if (reason === undefined) return Effect.failCause(cause)
    context.task.meta.skippedFor = reason
    return Effect.sync(() => context.skip(reason))
  })

/**
 * Fails a little before the test's own limit. Vitest would wait for the finalizers of a test that it has given up, and those
 * wait for the device that hangs: that would be another limit of time for each such test.
 */
const ended = <A, E, R>(effect: Effect.Effect<A, E, R>, limitMillis: number): Effect.Effect<A, E, R> =>
  limitMillis === 0 ? effect : within("the test", effect, limitMillis * 0.9)

/**
 * Says at once what failed, because a release that waits for a device may stand between the failure and its report; and
 * lets such a release give up early.
 */
const announced = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.gen(function* () {
    const limited = Effect.provideService(effect, Bdev.ReleaseTimeout, "10 seconds")
    const scope = yield* Effect.scope
    const inner = yield* Scope.fork(scope)
    const exit = yield* Effect.exit(Effect.provideService(limited, Scope.Scope, inner))
    if (Exit.isFailure(exit) && skipReason(exit.cause) === undefined) console.error(Cause.pretty(exit.cause))
    yield* Effect.provideService(Scope.close(inner, exit), Bdev.ReleaseTimeout, "10 seconds")
    return yield* exit
  })

/** Runs in a scope of its own and compares what the engine holds before and after, every number of it. */
export const leavesNothing = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Spdk.Spdk | Exclude<R, Scope.Scope>> =>
  Effect.gen(function* () {
    const spdk = yield* Spdk.Spdk
    const before = yield* spdk.usage
    const result = yield* Effect.scoped(effect)
    assert.deepStrictEqual(yield* spdk.usage, before, "the engine holds what it held before")
    return result
  })

/**
 * Expects the effect to fail with this reason, and with these fields of it; hands the reason on. A success, a
 * defect, an interruption and another reason are all told apart in the message.
 */
export const failsWith = <A, E, R, Tag extends SpdkError.Reason["_tag"]>(
  effect: Effect.Effect<A, E, R>,
  tag: Tag,
  fields: Readonly<Record<string, unknown>> = {}
): Effect.Effect<Extract<SpdkError.Reason, { readonly _tag: Tag }>, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => expectReason(exit, tag, fields))

export const expectReason = <A, E, Tag extends SpdkError.Reason["_tag"]>(
  exit: Exit.Exit<A, E>,
  tag: Tag,
  fields: Readonly<Record<string, unknown>> = {}
): Extract<SpdkError.Reason, { readonly _tag: Tag }> => {
  if (Exit.isSuccess(exit)) assert.fail(`expected ${tag}, but it succeeded with ${String(exit.value)}`)
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (!SpdkError.isSpdkError(error)) assert.fail(`expected ${tag}, got ${Cause.pretty(exit.cause)}`)
  return checkReason(error.reason, tag, fields)
}

/** Expects a release that gave up: those have no error channel, so that they die. */
export const expectReleaseTimedOut = <A, E>(
  exit: Exit.Exit<A, E>,
  fields: Readonly<Record<string, unknown>> = {}
): void => {
  if (Exit.isSuccess(exit)) assert.fail("expected TimedOut, but it succeeded")
  const defect = Result.getOrElse(Cause.findDefect(exit.cause), () => undefined)
  if (!SpdkError.isSpdkError(defect)) assert.fail(`expected TimedOut, got ${Cause.pretty(exit.cause)}`)
  checkReason(defect.reason, "TimedOut", fields)
}

const checkReason = <Tag extends SpdkError.Reason["_tag"]>(
  reason: SpdkError.Reason,
  tag: Tag,
  fields: Readonly<Record<string, unknown>>
): Extract<SpdkError.Reason, { readonly _tag: Tag }> => {
  assert.strictEqual(reason._tag, tag, reason.message)
  const actual: Record<string, unknown> = { ...reason }
  for (const [field, expected] of Object.entries(fields)) {
    assert.deepStrictEqual(actual[field], expected, `${tag}.${field} of: ${reason.message}`)
  }
  // The tag has just been compared; TypeScript does not narrow a union by a type parameter.
  return reason as Extract<SpdkError.Reason, { readonly _tag: Tag }>
}

/** Expects a failure with one of several reasons, where the moment decides which. */
export const expectReasonIn = <A, E>(exit: Exit.Exit<A, E>, tags: ReadonlyArray<SpdkError.ReasonTag>): void => {
  if (Exit.isSuccess(exit)) assert.fail(`expected one of ${tags.join(", ")}, but it succeeded`)
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (!SpdkError.isSpdkError(error)) assert.fail(`expected one of ${tags.join(", ")}, got ${Cause.pretty(exit.cause)}`)
  assert.include(tags, error.reason._tag, Cause.pretty(exit.cause))
}

/** The exit of an interrupted fiber: interrupts only, no failure hidden in it. */
export const expectInterrupted = <A, E>(exit: Exit.Exit<A, E>): void => {
  if (Exit.isSuccess(exit)) assert.fail("expected an interruption, but it succeeded")
  assert.isTrue(Cause.hasInterruptsOnly(exit.cause), Cause.pretty(exit.cause))
}

/** One turn of Node's event loop. */
export const turn: Effect.Effect<void> = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/**
 * A limit of time that counts only the time this process was there for: where the machine stops it for seconds, those are
 * no fault of what is waited for. A timer that comes late counts once. The return cancels it.
 */
const afterOwnMillis = (millis: number, expired: () => void): (() => void) => {
  const tickMillis = Math.max(1, Math.min(100, millis / 10))
  let left = Math.ceil(millis / tickMillis)
  const timer = setInterval(() => {
    if (--left > 0) return
    clearInterval(timer)
    expired()
  }, tickMillis)
  return () => clearInterval(timer)
}

/** Waits for a condition, looking once per turn of the event loop, and fails after the deadline. */
export const until = <E, R>(
  what: string,
  condition: Effect.Effect<boolean, E, R>,
  deadlineMillis = 15_000
): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    let isOver = false
    const cancel = afterOwnMillis(deadlineMillis, () => (isOver = true))
    return Effect.gen(function* () {
      while (!(yield* condition)) {
        if (isOver) assert.fail(`not within ${deadlineMillis} ms: ${what}`)
        yield* turn
      }
    }).pipe(Effect.ensuring(Effect.sync(cancel)))
  })

/**
 * Fails, instead of hanging until the test's own limit, when the effect takes longer than it ever should. What hangs may
 * be what cannot be interrupted, so nobody waits for it then.
 */
export const within = <A, E, R>(
  what: string,
  effect: Effect.Effect<A, E, R>,
  millis = 20_000
): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) =>
    Effect.callback<A, E>((resume) => {
      const cancel = afterOwnMillis(millis, () => {
        fiber.interruptUnsafe()
        resume(Effect.die(new Error(`not within ${millis} ms: ${what}`)))
      })
      fiber.addObserver((exit) => {
        cancel()
        resume(exit)
      })
      return Effect.suspend(() => {
        cancel()
        return Fiber.interrupt(fiber)
      })
    })
  )

/**
 * Runs a test of a limit of time, with the limit that it is to give. What happens before the limit is due needs time too: where
 * the machine has kept us from it for longer than that, as the test's own clock says, nothing is shown, and it runs again with
 * twice the limit. `inTime` wraps what the test counts on to be quicker than the limit.
 */
export const withLimit = <E, R>(
  millis: number,
  test: (
    millis: number,
    inTime: <A, E2, R2>(effect: Effect.Effect<A, E2, R2>) => Effect.Effect<A, E2, R2>
  ) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, R | Scope.Scope> =>
  Effect.suspend(() => {
    let wasLate = false
    const inTime = <A, E2, R2>(effect: Effect.Effect<A, E2, R2>): Effect.Effect<A, E2, R2> =>
      Effect.suspend(() => {
        const started = performance.now()
        const look = Effect.sync(() => void (wasLate ||= performance.now() - started >= millis))
        return Effect.ensuring(effect, look)
      })
    return Effect.flatMap(Effect.exit(Effect.scoped(test(millis, inTime))), (exit) =>
      Exit.isFailure(exit) && wasLate && millis < 10_000 ? withLimit(2 * millis, test) : exit
    )
  })

let names = 0
/** A name that no other test of this process uses. */
export const fresh = (prefix: string): string => `${prefix}_${++names}`

export const blockSize = 512

/** A malloc bdev of so many blocks of 512 bytes, opened for writing. */
export const mallocOpened = (numBlocks = 2048) =>
  Effect.gen(function* () {
    const name = yield* Bdev.createMalloc({ name: fresh("malloc"), blockSize, numBlocks })
    return yield* Bdev.open(name, { write: true })
  })

/** Compares bytes and names the first that differs: an equality of two megabyte arrays prints nothing useful. */
export const sameBytes = (actual: Uint8Array, expected: Uint8Array, what: string): void => {
  assert.strictEqual(actual.length, expected.length, `length of ${what}`)
  if (Buffer.compare(actual, expected) === 0) return
  const at = actual.findIndex((byte, index) => byte !== expected[index])
  assert.fail(`${what} differ from byte ${at}: ${actual[at]} is there, ${expected[at]} was expected`)
}
