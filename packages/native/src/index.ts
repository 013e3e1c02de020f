/** libspdk bound to Node.js: the addon, the rings and the typed face over them. No Effect here. */
export * as Addon from "./Addon.ts"
export * as Host from "./Host.ts"
export * as Layout from "./Layout.ts"
export * as Queue from "./Queue.ts"
export * as RingQueue from "./RingQueue.ts"
