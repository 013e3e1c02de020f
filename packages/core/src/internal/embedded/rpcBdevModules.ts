/**
 * The RPC methods that make, change and delete bdevs.
 */
import * as Effect from "effect/Effect"
import { type Bdev } from "./bdev.ts"
import { createAio, moduleName as aio, rescanAio } from "./bdevAio.ts"
import { DelayModule } from "./bdevDelay.ts"
import { ErrorModule, moduleName as error } from "./bdevError.ts"
import { MallocModule, moduleName as malloc } from "./bdevMalloc.ts"
import { createNull, moduleName as nullModule, resizeNull } from "./bdevNull.ts"
import { PassthruModule } from "./bdevPassthru.ts"
import type { NvmeModule } from "./bdevNvmeModule.ts"
import type { BdevRegistry } from "./bdevRegistry.ts"
import { SplitModule } from "./bdevSplit.ts"
import { addBdevNvme } from "./rpcBdevNvme.ts"
import {
  type Answer,
  errnoFault,
  invalidParams,
  orErrno,
  RpcFault,
  type RpcTable,
  trueOrErrno,
  whenGone
} from "./rpcTable.ts"
import { EINVAL, strerror } from "./status.ts"

const nameOf = (bdev: Bdev): string => bdev.name

export const addBdevModules = (table: RpcTable, registry: BdevRegistry): NvmeModule => {
  addDisks(table, registry)
  const nvme = addBdevNvme(table, registry)
  addAio(table, registry)
  // The order in which SPDK's modules look at a new bdev, and so which of them gets it.
  const passthru = new PassthruModule(registry)
  const errors = new ErrorModule(registry)
  const split = new SplitModule(registry)
  const delay = new DelayModule(registry)
  registry.virtualModules.push(passthru, errors, split, delay)
  addPassthru(table, passthru)
  addError(table, registry, errors)
  addSplit(table, split)
  addDelay(table, delay)
  return nvme
}

/** Metadata beside the blocks: SPDK's malloc and null bdevs can have it, these cannot. */
const metadataFault = (params: {
  readonly md_size?: number | undefined
  readonly dif_type?: number | undefined
}): RpcFault | undefined => {
  const { dif_type: difType = 0, md_size: size = 0 } = params
  if (![0, 8, 16, 32, 64, 128].includes(size)) return errnoFault(-EINVAL)
  if (size !== 0) return invalidParams("md_size: the embedded engine has no bdevs with metadata")
  if (difType !== 0) return invalidParams("dif_type: the embedded engine has no bdevs with metadata")
  return undefined
}

const addDisks = (table: RpcTable, registry: BdevRegistry): void => {
  const mallocs = new MallocModule(registry)
  table.add("bdev_malloc_create", (params) => {
    const fault = metadataFault(params)
    if (fault !== undefined) return Effect.fail(fault)
    const made = mallocs.create({
      name: params.name,
      uuid: params.uuid,
      numBlocks: Number(params.num_blocks),
      blockSize: params.block_size,
      physicalBlockSize: params.physical_block_size ?? 0,
      optimalIoBoundaryBlocks: params.optimal_io_boundary ?? 0,
      numaId: params.numa_id ?? -1
    })
    return orErrno(made, nameOf)
  })
  table.add("bdev_malloc_delete", ({ name }) => whenGone((done) => registry.unregisterByName(name, malloc, done)))
  table.add("bdev_null_create", (params) => {
    const fault = metadataFault(params)
    if (fault !== undefined) return Effect.fail(fault)
    const made = createNull(registry, {
      name: params.name,
      uuid: params.uuid,
      numBlocks: Number(params.num_blocks),
      blockSize: params.block_size,
      physicalBlockSize: params.physical_block_size ?? 0,
      preferredWriteAlignment: params.preferred_write_alignment ?? 0,
      preferredWriteGranularity: params.preferred_write_granularity ?? 0,
      optimalWriteSize: params.optimal_write_size ?? 0,
      preferredUnmapAlignment: params.preferred_unmap_alignment ?? 0,
      preferredUnmapGranularity: params.preferred_unmap_granularity ?? 0
    })
    return orErrno(made, nameOf)
  })
  table.add("bdev_null_resize", (params) => trueOrErrno(resizeNull(registry, params.name, Number(params.new_size))))
  table.add("bdev_null_delete", ({ name }) => whenGone((done) => registry.unregisterByName(name, nullModule, done)))
}

const addAio = (table: RpcTable, registry: BdevRegistry): void => {
  table.add("bdev_aio_create", (params) => {
    const made = createAio(registry, {
      name: params.name,
      filename: params.filename,
      blockSize: params.block_size ?? 0,
      isReadonly: params.readonly ?? false,
      fallocate: params.fallocate ?? false,
      nowait: params.nowait ?? false,
      uuid: params.uuid
    })
    return orErrno(made, nameOf)
  })
  table.add("bdev_aio_rescan", ({ name }) => trueOrErrno(rescanAio(registry, name)))
  table.add("bdev_aio_delete", ({ name }) => whenGone((done) => registry.unregisterByName(name, aio, done)))
}

const created = (errno: number, name: string): Answer => orErrno(errno === 0 ? name : errno, (name) => name)

const addPassthru = (table: RpcTable, passthru: PassthruModule): void => {
  table.add("bdev_passthru_create", (params) =>
    created(passthru.create({ name: params.name, baseName: params.base_bdev_name, uuid: params.uuid }), params.name)
  )
  table.add("bdev_passthru_delete", ({ name }) => whenGone((done) => passthru.delete(name, done)))
}

const addDelay = (table: RpcTable, delay: DelayModule): void => {
  table.add("bdev_delay_create", (params) => {
    const errno = delay.create({
      name: params.name,
      baseName: params.base_bdev_name,
      uuid: params.uuid,
      latencies: {
        avg_read: Number(params.avg_read_latency),
        p99_read: Number(params.p99_read_latency),
        avg_write: Number(params.avg_write_latency),
        p99_write: Number(params.p99_write_latency)
      }
    })
    return created(errno, params.name)
  })
  table.add("bdev_delay_update_latency", (params) =>
    delay.updateLatency(params.delay_bdev_name, params.latency_type, Number(params.latency_us)) === 0
      ? Effect.succeed(true)
      : Effect.fail(invalidParams("The requested bdev does not exist."))
  )
  table.add("bdev_delay_delete", ({ name }) => whenGone((done) => delay.delete(name, done)))
}

const addSplit = (table: RpcTable, split: SplitModule): void => {
  const onInvalid = invalidParams()
  table.add(
    "bdev_split_create",
    ({ base_bdev: base, split_count: count, split_size_mb: size }) => {
      const made = split.create(base, count, Number(size ?? 0))
      if (typeof made !== "number") return Effect.succeed(made)
      return Effect.fail(invalidParams(`Failed to create ${count} split bdevs from '${base}': ${strerror(-made)}`))
    },
    { onInvalid }
  )
  table.add(
    "bdev_split_delete",
    (params) => {
      const errno = split.delete(params.base_bdev)
      return errno === 0 ? Effect.succeed(true) : Effect.fail(invalidParams(strerror(-errno)))
    },
    { onInvalid }
  )
}

const addError = (table: RpcTable, registry: BdevRegistry, errors: ErrorModule): void => {
  table.add("bdev_error_create", (params) => trueOrErrno(errors.create(params.base_name, params.uuid)))
  table.add("bdev_error_inject_error", (params) => {
    const nvmeSct = params.nvme_sct ?? 0
    const nvmeSc = params.nvme_sc ?? 0
    if ((params.error_type === "nvme_failure") === (nvmeSct === 0 && nvmeSc === 0)) {
      return Effect.fail(new RpcFault(-EINVAL, "nvme_sct or nvme_sc should be specified for NVMe error injection"))
    }
    const errno = errors.inject(params.name, params.io_type, {
      type: params.error_type,
      count: params.num ?? 1,
      queueDepth: Number(params.queue_depth ?? 0),
      corruptOffset: Number(params.corrupt_offset ?? 0),
      corruptValue: params.corrupt_value ?? 0,
      nvmeSct,
      nvmeSc
    })
    return trueOrErrno(errno)
  })
  table.add("bdev_error_resume_pending", ({ name }) => trueOrErrno(errors.resumePending(name)))
  table.add("bdev_error_delete", ({ name }) => whenGone((done) => registry.unregisterByName(name, error, done)))
}
