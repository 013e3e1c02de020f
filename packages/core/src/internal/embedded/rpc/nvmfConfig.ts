/**
 * The configuration of the NVMe-oF target: what is set before it starts, and the calls that make what there is.
 */
import * as Effect from "effect/Effect"
import type { Json } from "../bdev/bdev.ts"
import type { Subsystem, Target } from "../nvmf/target.ts"
import { answerTrue, invalid } from "./nvmfAnswers.ts"
import { dumpAddress, dumpTransport } from "./nvmfDumps.ts"
import { invalidParams, type RpcTable } from "./table.ts"

/** What this target cannot do differently: the values that SPDK has by default. */
const fixed = {
  discovery_filter: "match_any",
  admin_cmd_passthru: {
    identify_ctrlr: false,
    identify_uuid_list: false,
    get_log_page: false,
    get_set_features: false,
    sanitize: false,
    security_send_recv: false,
    fw_update: false,
    nvme_mi: false,
    vendor_specific: false
  },
  dhchap_digests: ["sha256", "sha384", "sha512"],
  dhchap_dhgroups: ["null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"],
  dup_host_policy: "allow"
}

export const addNvmfSettings = (table: RpcTable, target: Target): void => {
  table.addStartup(
    "nvmf_set_config",
    (params) => {
      const { admin_cmd_passthru: passthru = {}, ...others } = params
      const wrong =
        Object.entries(passthru).find(([, value]) => value === true)?.[0] ??
        Object.entries(others).find(([name, value]) => value !== undefined && !isFixed(name, value))?.[0]
      return wrong === undefined
        ? answerTrue
        : Effect.fail(invalidParams(`${wrong}: the embedded engine's target cannot be set to anything else`))
    },
    { onInvalid: invalid }
  )
  table.addStartup(
    "nvmf_set_crdt",
    ({ crdt1 = 0, crdt2 = 0, crdt3 = 0 }) => {
      target.retryDelays = [crdt1, crdt2, crdt3]
      return answerTrue
    },
    { isOptional: true, onInvalid: invalid }
  )
}

const isFixed = (name: string, value: unknown): boolean =>
  Object.hasOwn(fixed, name) && JSON.stringify(fixed[name as keyof typeof fixed]) === JSON.stringify(value)

export const nvmfConfig = (target: Target, withBatches: boolean): ReadonlyArray<Json> => {
  const [crdt1 = 0, crdt2 = 0, crdt3 = 0] = target.retryDelays
  const subsystems = [...target.subsystems.values()]
  const exported = subsystems.filter(({ options }) => !options.isDiscovery)
  const batches: ReadonlyArray<ReadonlyArray<Json>> = [
    exported.map(subsystemCall),
    exported.flatMap(({ hosts, nqn }) => hosts.map((host) => call("nvmf_subsystem_add_host", { nqn, host }))),
    exported.flatMap(namespaceCalls),
    exported.flatMap((subsystem) =>
      subsystem
        .sortedNamespaces()
        .flatMap(({ hosts, nsid }) =>
          [...hosts].map((host) => call("nvmf_ns_add_host", { nqn: subsystem.nqn, nsid, host }))
        )
    ),
    subsystems.flatMap(({ listeners, nqn }) =>
      listeners.map(({ address }) =>
        call("nvmf_subsystem_add_listener", { nqn, listen_address: dumpAddress(address), secure_channel: false })
      )
    )
  ]
  return [
    call("nvmf_set_config", fixed),
    call("nvmf_set_max_subsystems", { max_subsystems: target.maxSubsystems }),
    call("nvmf_set_crdt", { crdt1, crdt2, crdt3 }),
    ...(target.transport === undefined ? [] : [call("nvmf_create_transport", dumpTransport(target.transport))]),
    ...target.referrals.map(({ adrfam, secure, subnqn, traddr, trsvcid, trtype }) =>
      call("nvmf_discovery_add_referral", {
        address: { trtype, adrfam, traddr, trsvcid },
        secure_channel: secure,
        subnqn
      })
    ),
    // Also empty ones.
    ...(withBatches ? batches : batches.flat())
  ]
}

const call = (method: string, params: Json): Json => ({ method, params })

const subsystemCall = ({ allowAnyHost, nqn, options }: Subsystem): Json =>
  call("nvmf_create_subsystem", {
    nqn,
    allow_any_host: allowAnyHost,
    serial_number: options.serialNumber,
    model_number: options.modelNumber,
    max_namespaces: options.maxNamespaces,
    min_cntlid: options.minControllerId,
    max_cntlid: options.maxControllerId,
    ana_reporting: options.anaReporting,
    dmrsl: options.dmrsl,
    wzsl: options.wzsl,
    passthrough: false,
    enable_nssr: false
  })

const namespaceCalls = (subsystem: Subsystem): ReadonlyArray<Json> =>
  subsystem.sortedNamespaces().map(({ anaGroup, bdev, ids, isVisibleToAll, nsid }) =>
    call("nvmf_subsystem_add_ns", {
      nqn: subsystem.nqn,
      namespace: {
        nsid,
        bdev_name: bdev.name,
        ...(ids.nguid === undefined ? {} : { nguid: ids.nguid }),
        ...(ids.eui64 === undefined ? {} : { eui64: ids.eui64 }),
        uuid: ids.uuid,
        ...(subsystem.options.anaReporting ? { anagrpid: anaGroup } : {}),
        no_auto_visible: !isVisibleToAll
      }
    })
  )
