/**
 * Waiting for what happens outside of this program: sockets, processes, devices, reactors. They do not know Effect's Clock, which a
 * test replaces: under a TestClock that nobody moves, a wait by it would never end. So these waits go by the clock of the Host, which
 * is the machine's, or a simulation's.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Host } from "./host.ts"

/** `Effect.sleep`. */
export const sleep = (duration: Duration.Input): Effect.Effect<void> =>
  Effect.flatMap(Host, ({ clock }) => clock.sleep(Duration.fromInputUnsafe(duration)))

/** `Effect.timeoutOption`. */
export const timeoutOption = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  duration: Duration.Input
): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.raceFirst(Effect.asSome(self), Effect.as(sleep(duration), Option.none<A>()))

/** `Effect.timeoutOrElse`. */
export const timeoutOrElse = <A, E, R, B, E2, R2>(
  self: Effect.Effect<A, E, R>,
  options: { readonly duration: Duration.Input; readonly orElse: () => Effect.Effect<B, E2, R2> }
): Effect.Effect<A | B, E | E2, R | R2> =>
  Effect.flatMap(timeoutOption(self, options.duration), (option): Effect.Effect<A | B, E2, R2> =>
    Option.isSome(option) ? Effect.succeed(option.value) : options.orElse()
  )

/** Repeats and retries within `self` go by the outside clock. For our own effects only: a program's keep their Clock. */
export const scheduled = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Host, ({ clock }) => Effect.provideService(self, Clock.Clock, clock))
