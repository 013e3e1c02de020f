/**
 * One kind of bdev, as the engine knows it. Everything that a module needs is a part of this: a module without one of them does not
 * compile.
 */
import type { RpcMethods } from "../../../generated/RpcMethods.ts"
import type { EmbeddedBdev, Json } from "./bdev.ts"
import type { AnswerOf, MethodOptions, RpcTable } from "../rpc/table.ts"

/** Adds RPC methods of the module. */
export type ModuleMethods = (table: RpcTable) => void

export interface BdevModule {
  /** SPDK's name of the module, which claims and `bdev_get_bdevs` show. */
  readonly name: string
  /** How many bdevs each bdev of the module stands on. */
  readonly bases: "none" | "one" | "many"
  readonly create: ModuleMethods
  readonly delete: ModuleMethods
  /** Methods that change a bdev, and others. */
  readonly others: ReadonlyArray<ModuleMethods>
  /**
   * A bdev has appeared: the module takes it as a base when a configuration waits for it. undefined for a module without bases, and
   * for no other.
   */
  readonly examine: ((bdev: EmbeddedBdev) => void) | undefined
  /** The RPC calls that make what there is. Physical modules batch theirs, as SPDK does: see `batched`. */
  readonly configCalls: (withBatches: boolean) => ReadonlyArray<Json>
}

/** One method, whose parameters the generated Schema describes. */
export const method =
  <Name extends keyof RpcMethods>(
    name: Name,
    run: (params: RpcMethods[Name]) => AnswerOf<Name>,
    options?: MethodOptions
  ): ModuleMethods =>
  (table) =>
    table.add(name, run, options)

/** The calls as one JSON-RPC batch, which SPDK writes also when it is empty. */
export const batched = (calls: ReadonlyArray<Json>, withBatches: boolean): ReadonlyArray<Json> =>
  withBatches ? [calls] : calls
