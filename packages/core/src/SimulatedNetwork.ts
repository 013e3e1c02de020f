/**
 * TCP in a `Simulation`: what the embedded target (`@effect-spdk/nvmf`) and the embedded host (`NvmeBdev`, `Nvme`) say to each other,
 * between engines of one run. The one thing to know is what the seed decides: how many bytes arrive together, when, whether a connection is
 * refused, cut or stalled, and at which byte. Within one connection and direction the order is kept; between connections there is none.
 *
 * Every `Simulation` has one, as `simulation.network`. Addresses are whatever is listened on: there is one network, without routes.
 *
 * ```ts
 * import * as Simulation from "@effect-spdk/core/Simulation"
 *
 * const simulation = Simulation.make({ seed: 7 })
 * // One connection in ten is cut, at any byte, within the next run.
 * simulation.network.faults.cut = 0.1
 * // Nothing passes for 30 seconds of virtual time; nothing is lost either.
 * simulation.network.stall(30_000_000)
 * ```
 *
 * @since 0.1.0
 */

/** Of the two ends of a connection, the one that connected, or the one that listened. @since 0.1.0 @category models */
export type Side = "client" | "server"

/** What both sides see of a cut: RST or FIN. What is on its way is lost. @since 0.1.0 @category models */
export type CutKind = "reset" | "end"

/** Chances, all 0 by default. They may be changed at any time. @since 0.1.0 @category models */
export interface Faults {
  /** Per connection, when it is made: that it is cut, after any number of bytes up to `cutBytes`. 0 also spares those there are. */
  cut: number
  /** Default 65,536. */
  cutBytes: number
  /** Per attempt to connect: that it is refused (ECONNREFUSED). */
  refuse: number
  /** Per piece on its way: that this direction of its connection stands still for up to `stallMicros`. */
  stall: number
  /** Default a second. */
  stallMicros: number
}

/** A piece of what one side has sent, when it is handed to the other. @since 0.1.0 @category models */
export interface Passage {
  /** Counted from 1 since the simulation was made. */
  readonly connection: number
  readonly port: number
  readonly from: Side
  /** Valid during the call. */
  readonly bytes: Uint8Array
}

/** @since 0.1.0 @category models */
export interface SimulatedNetwork {
  readonly faults: Faults
  /** Of each direction of a connection, which has one latency from there for itself, and up to as much again for each piece. Default 20 to 300. */
  latencyMicros: { least: number; most: number }
  /** Connections that are open, or being opened, on either side. */
  readonly connections: number
  /** Addresses that are listened on. */
  readonly listening: number
  /** Sees every piece before it arrives. */
  onPassage: ((passage: Passage) => void) | undefined
  /** Nothing passes for so long, on all connections to a port, or on all there are; of one side, when it is given. Nothing is lost. */
  readonly stall: (
    micros: number,
    options?: { readonly port?: number | undefined; readonly from?: Side | undefined }
  ) => void
  /** Cuts all connections to a port, or all there are. Later ones are not concerned. */
  readonly cut: (kind: CutKind, options?: { readonly port?: number | undefined }) => void
}
