/**
 * The NVMe-oF target's parts as SPDK tells of them, in answers and in saved configurations.
 */
import type { Json } from "../bdev/bdev.ts"
import type { Address, Subsystem, TransportOptions } from "../nvmf/target.ts"

export const dumpAddress = ({ adrfam, traddr, trsvcid }: Address) => ({ trtype: "TCP", adrfam, traddr, trsvcid })

/** What this target cannot do differently, and a host would see: the values that SPDK has by default. */
export const fixedTransportOptions = {
  dif_insert_or_strip: false,
  disable_command_passthru: false
} as const

/** What has nothing to act on here and changes no answer to a host, with SPDK's defaults where it tells them. */
export const inertTransportOptions = {
  iobuf_small_cache_size: 0xffff_ffff,
  iobuf_large_cache_size: 0xffff_ffff,
  zcopy: false,
  sock_priority: 0,
  abort_timeout_sec: 1,
  ack_timeout: 0,
  data_wr_pool_size: 0
} as const

export const dumpTransport = (options: TransportOptions) => ({
  trtype: "TCP",
  max_queue_depth: options.max_queue_depth,
  max_io_qpairs_per_ctrlr: options.max_io_qpairs_per_ctrlr,
  in_capsule_data_size: options.in_capsule_data_size,
  max_io_size: options.max_io_size,
  max_aq_depth: options.max_aq_depth,
  ...inertTransportOptions,
  ...fixedTransportOptions,
  c2h_success: options.c2h_success,
  kas: options.kas,
  min_kato: options.min_kato
})

export const dumpSubsystem = (subsystem: Subsystem): Json => {
  const { options } = subsystem
  const common = {
    nqn: options.nqn,
    subtype: options.isDiscovery ? "Discovery" : "NVMe",
    listen_addresses: subsystem.listeners.map(({ address }) => dumpAddress(address)),
    allow_any_host: subsystem.allowAnyHost,
    hosts: subsystem.hosts.map((nqn) => ({ nqn }))
  }
  if (options.isDiscovery) return common
  return {
    ...common,
    serial_number: options.serialNumber,
    model_number: options.modelNumber,
    max_namespaces: options.maxNamespaces,
    passthrough: false,
    min_cntlid: options.minControllerId,
    max_cntlid: options.maxControllerId,
    dmrsl: options.dmrsl,
    wzsl: options.wzsl,
    namespaces: subsystem.sortedNamespaces().map(({ anaGroup, bdev, ids, nsid }) => ({
      nsid,
      bdev_name: bdev.name,
      name: bdev.name,
      ...(ids.nguid === undefined ? {} : { nguid: ids.nguid }),
      ...(ids.eui64 === undefined ? {} : { eui64: ids.eui64 }),
      uuid: ids.uuid,
      ...(options.anaReporting ? { anagrpid: anaGroup } : {})
    }))
  }
}
