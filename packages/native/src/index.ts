/** libspdk for Node.js: the addon, the rings and their typed interface, without Effect. */
export * as Addon from "./Addon.ts"
export * as Host from "./Host.ts"
export * as Layout from "./Layout.ts"
export * as Queue from "./Queue.ts"
export * as RingQueue from "./RingQueue.ts"
