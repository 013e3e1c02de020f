/**
 * A subsystem and what it has, as handles. Import all of this from `NvmfTarget`.
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

/** Why a call about a target fails. @since 0.1.0 @category errors */
export type NvmfError = SpdkError<RpcReason>

/** An exported bdev. @since 0.1.0 @category models */
export interface Namespace {
  readonly nsid: number
  readonly bdev: string
  readonly uuid: string
  /** Moves it to another ANA group (`nvmf_subsystem_set_ns_ana_group`). */
  setAnaGroup(group: number): Effect.Effect<void, NvmfError>
  /** Lets one more host see it, one that is let in anyway, until the end of the scope. Only where `visibleTo` was given. */
  showTo(hostNqn: string): Effect.Effect<void, NvmfError, Scope.Scope>
}

/** An address that a subsystem is listened for at. @since 0.1.0 @category models */
export interface Listener {
  readonly address: Info.Address
  /** Of one group, or of all (`nvmf_subsystem_listener_set_ana_state`). Hosts hear of it. */
  setAnaState(
    state: "optimized" | "non_optimized" | "inaccessible",
    options?: { readonly group?: number | undefined }
  ): Effect.Effect<void, NvmfError>
}

/** A host that is let in. @since 0.1.0 @category models */
export interface Host {
  readonly nqn: string
  /** Other keys, for connections from now on (`nvmf_subsystem_set_keys`). */
  setKeys(options: {
    readonly dhchapKey: KeyInput
    readonly dhchapControllerKey?: KeyInput | undefined
  }): Effect.Effect<void, NvmfError>
}

/** What has become of a host's connection between two looks. @since 0.1.0 @category models */
export type ControllerEvent =
  | { readonly _tag: "Connected"; readonly controller: Info.ControllerInfo }
  | { readonly _tag: "Disconnected"; readonly controller: Info.ControllerInfo }

/** What has become of a queue pair between two looks. @since 0.1.0 @category models */
export type QpairEvent =
  | { readonly _tag: "QpairConnected"; readonly qpair: Info.QpairInfo }
  | { readonly _tag: "QpairDisconnected"; readonly qpair: Info.QpairInfo }

/** Who may come, and where: what the discovery subsystem has too. @since 0.1.0 @category models */
export interface SubsystemAccess {
  readonly nqn: string
  readonly info: Effect.Effect<Info.SubsystemInfo, NvmfError>
  readonly listeners: Effect.Effect<ReadonlyArray<Info.ListenerInfo>, NvmfError>
  /**
   * Listens (`nvmf_subsystem_add_listener`) until the end of the scope, which disconnects who has come that way. `Busy` when
   * another program has the address, `AlreadyExists` when the subsystem has it, `NotFound` when the target lacks the transport.
   */
  addListener(options?: ListenerOptions): Effect.Effect<Listener, NvmfError, Scope.Scope>
  /** Lets a host in until the end of the scope, which disconnects it. `AlreadyExists` when it is let in already. */
  addHost(options: HostOptions): Effect.Effect<Host, NvmfError, Scope.Scope>
  /** Whether anybody is let in (`nvmf_subsystem_allow_any_host`). Who is connected stays. */
  setAllowAnyHost(allow: boolean): Effect.Effect<void, NvmfError>
}

/**
 * A subsystem. What is added to it in its own scope ends with it: listeners first, then it waits for its hosts to leave, and only
 * then the namespaces go, in whatever order they were added. What is added in a scope of its own goes when that closes.
 *
 * SPDK has no call that pauses a subsystem: it does that by itself, for a moment, whenever one of its parts changes or is asked
 * after, as by `controllers`, `qpairs` and `listeners`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subsystem extends SubsystemAccess {
  /**
   * Exports a bdev (`nvmf_subsystem_add_ns`) until the end of the scope. Hosts that are connected hear of both. `NotFound` without
   * such a bdev, `AlreadyExists` when it is exported already or the nsid or an identifier is taken, `PermissionDenied` when somebody
   * else has claimed it, `NoSpace` when there are `maxNamespaces` of them.
   *
   * An SPDK that has attached its own export must not see its namespaces change: its initiator waits on its reactor for what it asks
   * then, and the target there cannot answer, for half a minute and more. Add first, then attach.
   */
  addNamespace(options: NamespaceOptions): Effect.Effect<Namespace, NvmfError, Scope.Scope>
  /** The connected hosts, one entry for each connection of one (`nvmf_subsystem_get_controllers`). */
  readonly controllers: Effect.Effect<ReadonlyArray<Info.ControllerInfo>, NvmfError>
  /** All queue pairs (`nvmf_subsystem_get_qpairs`). */
  readonly qpairs: Effect.Effect<ReadonlyArray<Info.QpairInfo>, NvmfError>
  /**
   * Hosts that come and go. Every run of the stream looks by the schedule, once a second by default, and begins with all that
   * are there. Who comes and goes between two looks is not seen. Each look pauses the subsystem for a moment.
   */
  controllerEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<ControllerEvent, NvmfError>
  /** As `controllerEvents`, of queue pairs. */
  qpairEvents(schedule?: Schedule.Schedule<unknown>): Stream.Stream<QpairEvent, NvmfError>
}
