/**
 * TCP in a `Simulation`: the connections between the embedded target (`@effect-spdk/nvmf`) and the embedded host
 * (`NvmeBdev`, `Nvme`), across the engines of one run. The seed decides how many bytes arrive together and when. The
 * seed also decides whether a connection is refused, cut or stalled, and at which byte. Bytes of one connection and
 * direction arrive in order. Connections have no order among them.
 *
 * Every `Simulation` has one network, as `simulation.network`. Any address can be listened on: the network has no
 * routes.
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

/** The end of a connection: the client connected, the server listened. @since 0.1.0 @category models */
export type Side = "client" | "server"

/** How both sides see a cut: as RST or as FIN. Bytes on their way are lost. @since 0.1.0 @category models */
export type CutKind = "reset" | "end"

/** Probabilities, all 0 by default. A program may change them at any time. @since 0.1.0 @category models */
export interface Faults {
  /**
   * For each new connection: the probability that it is cut, after any number of bytes up to `cutBytes`. The value 0
   * also spares existing connections.
   */
  cut: number
  /** Default 65,536. */
  cutBytes: number
  /** For each attempt to connect: the probability that it is refused (ECONNREFUSED). */
  refuse: number
  /**
   * For each piece on its way: the probability that this direction of the connection stalls, for up to `stallMicros`.
   */
  stall: number
  /** Default one second. */
  stallMicros: number
}

/** A piece of sent bytes at the moment of its arrival. @since 0.1.0 @category models */
export interface Passage {
  /** The number of the connection, counted from 1 since the simulation was made. */
  readonly connection: number
  readonly port: number
  readonly from: Side
  /** Valid only during the call. */
  readonly bytes: Uint8Array
}

/** @since 0.1.0 @category models */
export interface SimulatedNetwork {
  readonly faults: Faults
  /**
   * The latency of each direction of a connection. Each direction draws one latency from this range, and for each piece
   * up to as much again. Default 20 to 300.
   */
  latencyMicros: { least: number; most: number }
  /** The number of open connections, including those that are being opened, on either side. */
  readonly connections: number
  /** The number of addresses that are listened on. */
  readonly listening: number
  /** Called with every piece before it arrives. */
  onPassage: ((passage: Passage) => void) | undefined
  /**
   * Stalls all connections, or all connections to a port, for this time. `side` limits the stall to one side. No bytes
   * are lost.
   */
  readonly stall: (
    micros: number,
    options?: { readonly port?: number | undefined; readonly from?: Side | undefined }
  ) => void
  /** Cuts all current connections, or all current connections to a port. Later connections are not affected. */
  readonly cut: (kind: CutKind, options?: { readonly port?: number | undefined }) => void
}
