/**
 * The handles of a subsystem and its parts. Import these names from `NvmfTarget`.
 *
 * @since 0.1.0
 */
import type { KeyInput } from "@effect-spdk/core/Keyring"
import type { RpcReason, SpdkError } from "@effect-spdk/core/SpdkError"
import type * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Info from "./NvmfInfo.ts"
import type { HostOptions, ListenerOptions, NamespaceOptions } from "./NvmfOptions.ts"

/** The error of a call on a target. @since 0.1.0 @category errors */
export type NvmfError = SpdkError<RpcReason>

/** An exported bdev. @since 0.1.0 @category models */
export interface Namespace {
  readonly nsid: number
  readonly bdev: string
  readonly uuid: string
  /** Moves the namespace to another ANA group (`nvmf_subsystem_set_ns_ana_group`). */
  setAnaGroup(group: number): Effect.Effect<void, NvmfError>
  /**
   * Makes the namespace visible to one more admitted host, until the end of the scope. Only for namespaces with
   * `visibleTo`.
   */
  showTo(hostNqn: string): Effect.Effect<void, NvmfError, Scope.Scope>
}

/** An address on which a subsystem listens. @since 0.1.0 @category models */
export interface Listener {
  readonly address: Info.Address
  /** Sets the ANA state of one group, or of all (`nvmf_subsystem_listener_set_ana_state`). Hosts receive a notice. */
  setAnaState(
    state: "optimized" | "non_optimized" | "inaccessible",
    options?: { readonly group?: number | undefined }
  ): Effect.Effect<void, NvmfError>
}

/** An admitted host. @since 0.1.0 @category models */
export interface Host {
  readonly nqn: string
  /** Sets other keys, for connections from now on (`nvmf_subsystem_set_keys`). */
  setKeys(options: {
    readonly dhchapKey: KeyInput
    readonly dhchapControllerKey?: KeyInput | undefined
  }): Effect.Effect<void, NvmfError>
}

/** A change of a host's connection between two polls. @since 0.1.0 @category models */
export type ControllerEvent =
  | { readonly _tag: "Connected"; readonly controller: Info.ControllerInfo }
  | { readonly _tag: "Disconnected"; readonly controller: Info.ControllerInfo }

/** A change of a queue pair between two polls. @since 0.1.0 @category models */
export type QpairEvent =
  | { readonly _tag: "QpairConnected"; readonly qpair: Info.QpairInfo }
  | { readonly _tag: "QpairDisconnected"; readonly qpair: Info.QpairInfo }

/**
 * The listeners and admitted hosts of a subsystem. The discovery subsystem has them too.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubsystemAccess {
  readonly nqn: string
  readonly info: Effect.Effect<Info.SubsystemInfo, NvmfError>
  readonly listeners: Effect.Effect<ReadonlyArray<Info.ListenerInfo>, NvmfError>
  /**
   * Adds a listener until the end of the scope (`nvmf_subsystem_add_listener`). The end of the scope disconnects the
   * hosts that use the listener. Fails with:
   *
   * - `Busy` when another program uses the address,
   * - `AlreadyExists` when the subsystem has the listener,
   * - `NotFound` when the target lacks the transport.
   */
  addListener(options?: ListenerOptions): Effect.Effect<Listener, NvmfError, Scope.Scope>
  /**
   * Admits a host until the end of the scope, which disconnects the host. Fails with `AlreadyExists` when the host is
   * admitted already.
   */
  addHost(options: HostOptions): Effect.Effect<Host, NvmfError, Scope.Scope>
  /** Sets whether every host is admitted (`nvmf_subsystem_allow_any_host`). Connected hosts stay connected. */
  setAllowAnyHost(allow: boolean): Effect.Effect<void, NvmfError>
}

/**
 * A subsystem. The end of the subsystem's scope removes its parts in this order, whatever the order of their creation.
 * First the listeners end. Then the release waits for the hosts to disconnect. Then the namespaces are removed. A part
 * that was added in another scope ends when that scope closes.
 *
 * SPDK has no call that pauses a subsystem. SPDK itself pauses the subsystem for a moment whenever a part of it changes
 * or is queried, for example by `controllers`, `qpairs` and `listeners`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subsystem extends SubsystemAccess {
  /**
   * Exports a bdev as a namespace until the end of the scope (`nvmf_subsystem_add_ns`). Connected hosts receive a
   * notice at both. Fails with:
   *
   * - `NotFound` when there is no such bdev,
   * - `AlreadyExists` when the bdev is exported already, or the nsid or an identifier is in use,
   * - `Busy` when another module or a loaded blobstore has claimed the bdev,
   * - `NoSpace` when the subsystem has `maxNamespaces` namespaces.
   *
   * When an SPDK has attached its own export, do not change the namespaces of that export. SPDK's initiator would block
   * its reactor for half a minute or more, waiting for a target on the same reactor. Add namespaces first, then attach.
   */
  addNamespace(options: NamespaceOptions): Effect.Effect<Namespace, NvmfError, Scope.Scope>
  /** The controllers of the subsystem: one for each connection of a host (`nvmf_subsystem_get_controllers`). */
  readonly controllers: Effect.Effect<ReadonlyArray<Info.ControllerInfo>, NvmfError>
  /** All queue pairs (`nvmf_subsystem_get_qpairs`). */
  readonly qpairs: Effect.Effect<ReadonlyArray<Info.QpairInfo>, NvmfError>
  /**
   * Follows the hosts' connections by polling. Every run of the stream polls by its own schedule, once a second by
   * default, and starts with all current connections. The stream misses a connection that starts and ends between two
   * polls. Each poll pauses the subsystem for a moment.
   */
  controllerEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<ControllerEvent, NvmfError>
  /** Follows the queue pairs, by the rules of `controllerEvents`. */
  qpairEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<QpairEvent, NvmfError>
}
