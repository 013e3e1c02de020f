/**
 * The embedded engine, by its one entrance.
 */
export { type EmbeddedOptions, make } from "./engine.ts"
