import type { Bdev } from "@effect-spdk/core/Bdev"

/** The handles that a store of this process is loaded on. What repairs a store by one of them would work against that store. */
export const hasStore = new WeakSet<Bdev>()
