/**
 * Listeners and hosts of a subsystem, the discovery subsystem among them.
 */
import { callDecoded, withinLimitByRpc } from "@effect-spdk/core/Engine"
import { keyName } from "@effect-spdk/core/Keyring"
import * as Rpc from "@effect-spdk/core/Rpc"
import { failInvalid } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Info from "../NvmfInfo.ts"
import type { HostOptions, ListenerOptions } from "../NvmfOptions.ts"
import type { SubsystemAccess, Host, Listener } from "../NvmfSubsystem.ts"
import {
  addressKey,
  addressParams,
  type AddressParams,
  checkAna,
  checkAnaGroup,
  checkHost,
  isWildcard,
  type SubsystemTraits
} from "./checks.ts"
import { explainHost, explainListener, type Failed, findSubsystem } from "./refusals.ts"

type Client = Rpc.RpcClient["Service"]

/** Gives back what `acquire` has made: at the end of the scope, or whatever the subsystem does instead. */
export type Hold = <A>(
  acquire: Effect.Effect<A, Failed>,
  release: (made: A) => Effect.Effect<void>
) => Effect.Effect<A, Failed, Scope.Scope>

export const makeAccess = (rpc: Client, traits: SubsystemTraits, hold: Hold): SubsystemAccess => ({
  nqn: traits.nqn,
  info: findSubsystem(rpc, traits.nqn),
  listeners: Effect.andThen(
    findSubsystem(rpc, traits.nqn),
    callDecoded(rpc, Schema.Array(Info.ListenerInfo), "nvmf_subsystem_get_listeners", { nqn: traits.nqn })
  ),
  addListener: (options = {}) => addListener(rpc, traits, hold, options),
  addHost: (options) => addHost(rpc, traits.nqn, hold, options),
  setAllowAnyHost: (allow) =>
    Effect.andThen(
      findSubsystem(rpc, traits.nqn),
      Rpc.callWith(rpc, "nvmf_subsystem_allow_any_host", { nqn: traits.nqn, allow_any_host: allow })
    )
})

const addListener = Effect.fn("NvmfSubsystem.addListener")(function* (
  rpc: Client,
  traits: SubsystemTraits,
  hold: Hold,
  options: ListenerOptions
): Effect.fn.Return<Listener, Failed, Scope.Scope> {
  const operation = "NvmfSubsystem.addListener"
  const { nqn } = traits
  const address = yield* addressParams(operation, options)
  if (isWildcard(address.traddr)) {
    // SPDK listens there, and lets nobody in: it compares with the address that the host came to. Discovery would tell hosts to dial it.
    const rule = "is not an address that a host can connect to: add a listener for each address of the machine"
    return yield* failInvalid(operation, "traddr", rule, address.traddr)
  }
  yield* checkAna(operation, "anaState", options.anaState, traits)
  if (options.secureChannel === true && address.trtype !== "TCP") {
    return yield* failInvalid(operation, "secureChannel", `has no effect with ${address.trtype}`, true)
  }
  const add = Rpc.callWith(rpc, "nvmf_subsystem_add_listener", {
    nqn,
    listen_address: address,
    ana_state: options.anaState,
    secure_channel: options.secureChannel,
    sock_impl: options.sockImpl,
    numa_id: options.numaId
  })
  yield* hold(explainListener(rpc, nqn, address)(add), () =>
    withinLimitByRpc("NvmfSubsystem.removeListener", nqn, removeListener(rpc, nqn, address))
  )
  return {
    address,
    setAnaState: (state, which) =>
      Effect.andThen(
        checkAnaGroup("Listener.setAnaState", which?.group, traits),
        Rpc.callWith(rpc, "nvmf_subsystem_listener_set_ana_state", {
          nqn,
          listen_address: address,
          ana_state: state,
          anagrpid: which?.group
        })
      )
  }
})

const addHost = Effect.fn("NvmfSubsystem.addHost")(function* (
  rpc: Client,
  nqn: string,
  hold: Hold,
  options: HostOptions
): Effect.fn.Return<Host, Failed, Scope.Scope> {
  yield* checkHost(options)
  const { dhchapControllerKey, dhchapKey, nqn: host, psk } = options
  const add = Rpc.callWith(rpc, "nvmf_subsystem_add_host", {
    nqn,
    host,
    psk: psk === undefined ? undefined : keyName(psk),
    dhchap_key: dhchapKey === undefined ? undefined : keyName(dhchapKey),
    dhchap_ctrlr_key: dhchapControllerKey === undefined ? undefined : keyName(dhchapControllerKey)
  })
  yield* hold(explainHost(rpc, nqn, options)(add), () =>
    withinLimitByRpc("NvmfSubsystem.removeHost", host, removeHost(rpc, nqn, host))
  )
  return {
    nqn: host,
    setKeys: (keys) =>
      Effect.asVoid(
        Rpc.callWith(rpc, "nvmf_subsystem_set_keys", {
          nqn,
          host,
          dhchap_key: keyName(keys.dhchapKey),
          dhchap_ctrlr_key: keys.dhchapControllerKey === undefined ? undefined : keyName(keys.dhchapControllerKey)
        })
      )
  }
})

/**
 * A removal that fails because its object, or the whole subsystem, is gone already has what it wants. SPDK does not say which it
 * was, so that the subsystem is asked.
 */
export const unlessGone = (
  rpc: Client,
  nqn: string,
  remove: Effect.Effect<unknown, Failed>,
  isThere: (now: Info.SubsystemInfo) => boolean
): Effect.Effect<void> =>
  Effect.catch(Effect.asVoid(remove), (error) =>
    findSubsystem(rpc, nqn).pipe(
      Effect.map(isThere),
      Effect.catch((asked) => (asked.reason._tag === "NotFound" ? Effect.succeed(false) : Effect.die(asked))),
      Effect.flatMap((there) => (there ? Effect.die(error) : Effect.void))
    )
  )

export const removeListener = (rpc: Client, nqn: string, address: AddressParams): Effect.Effect<void> =>
  unlessGone(
    rpc,
    nqn,
    Rpc.callWith(rpc, "nvmf_subsystem_remove_listener", { nqn, listen_address: address }),
    ({ listeners }) => listeners.some((one) => addressKey(one) === addressKey(address))
  )

const removeHost = (rpc: Client, nqn: string, host: string): Effect.Effect<void> =>
  unlessGone(rpc, nqn, Rpc.callWith(rpc, "nvmf_subsystem_remove_host", { nqn, host }), ({ hosts }) =>
    hosts.some((one) => one.nqn === host)
  )
