/**
 * The embedded engine, by its one entrance.
 */
export { type EmbeddedOptions, make } from "./runtime/engine.ts"
