/** Which bdevs have a blobstore of this process loaded on them. Whatever else writes there works against that store. */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { Engine } from "@effect-spdk/core/Engine"
import { Busy, DeviceRemoved, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Place } from "./reasons.ts"
import { stackOf } from "./stack.ts"

/** The handles that a store is loaded on, for what repairs a store by one of them. */
export const hasStore = new WeakSet<Bdev>()

type Claims = Map<string, object>

/** By engine, the names of the bdevs. */
const claims = new WeakMap<Engine, Claims>()

/** All layers of libspdk have the bdevs of one SPDK, and all copies of this module in a thread find this. */
const place = Symbol.for("@effect-spdk/blobstore/claims")

const claimsOf = (engine: Engine): Claims => {
  const shared = engine.kind === "libspdk"
  const known: Claims | undefined = shared ? Reflect.get(globalThis, place) : claims.get(engine)
  if (known !== undefined) return known
  const made: Claims = new Map()
  if (shared) Reflect.set(globalThis, place, made)
  else claims.set(engine, made)
  return made
}

const detail = "a blobstore is loaded on this bdev"

/**
 * Keeps everybody else's writing off the bdev until the scope closes, or until what is returned has run: other stores, exports, bdevs on
 * top of it, new handles. `Busy` names whoever has claimed it already.
 */
export const claim = (
  place: Place,
  engine: Engine,
  bdev: Bdev
): Effect.Effect<Effect.Effect<void>, SpdkError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const claimed = claimsOf(engine)
      const { name } = bdev
      if (claimed.has(name)) return Effect.fail(new SpdkError({ reason: new Busy({ ...place, detail }) }))
      // Another bdev may have its name by now.
      if (bdev.isRemoved) return Effect.fail(new SpdkError({ reason: new DeviceRemoved({ ...place }) }))
      const mine = {}
      claimed.set(name, mine)
      const forget = Effect.sync(() => {
        if (claimed.get(name) !== mine) return
        claimed.delete(name)
        hasStore.delete(bdev)
      })
      return engine.claimBdev(name, place.operation).pipe(
        Effect.tap(() => Effect.sync(() => void hasStore.add(bdev))),
        Effect.onError(() => forget),
        Effect.map((release) => Effect.andThen(release, forget))
      )
    }),
    (letGo) => letGo
  )

/** The bdev with a loaded store that `name`, an alias or a UUID, is or lies on; undefined when there is none. */
export const claimedBelow = (engine: Engine, name: string): Effect.Effect<string | undefined> =>
  Effect.map(stackOf(engine.rpc, name), (levels) => levels.find((one) => claimsOf(engine).has(one.name))?.name)
