/** SPDK's blobstore in TypeScript, over any bdev of any engine, on SPDK's on-disk format. */
import type { Bdev } from "@effect-spdk/core/Bdev"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import type { DriverFactory, DriverInitOptions, DriverLoadOptions } from "../driver.ts"
import { init, load } from "./load.ts"
import { PortableStore } from "./portableStore.ts"

export const portableDriver: DriverFactory = {
  kind: "portable",
  init: (bdev: Bdev, options: DriverInitOptions) => uninterrupted(Effect.map(init(bdev, options), wrap)),
  load: (bdev: Bdev, options: DriverLoadOptions) => Effect.map(load(bdev, options), wrap)
}

const wrap = (store: ConstructorParameters<typeof PortableStore>[0]): PortableStore => new PortableStore(store)

/** What has begun to overwrite a device goes on to its end. */
const uninterrupted = <A, R>(effect: Effect.Effect<A, SpdkError, R>): Effect.Effect<A, SpdkError, R> =>
  Effect.uninterruptible(effect)
