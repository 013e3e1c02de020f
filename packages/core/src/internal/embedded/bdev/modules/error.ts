/**
 * Error bdevs: the base, with faults on request. For tests.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type { EmbeddedBdev, EmbeddedChannel, ChannelThread, Json } from "../bdev.ts"
import { PartBase, PartBdev } from "../part.ts"
import { type BdevModule, method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import { StackedChannel } from "../stacked.ts"
import type { EmbeddedIo } from "../io.ts"
import { SlabMemory } from "../../queue/memory.ts"
import { RpcFault, trueOrErrno, whenGone } from "../../rpc/table.ts"
import { aborted, EEXIST, EINVAL, ENODEV, failed, type IoStatus, nvmeFailure, success } from "../../queue/status.ts"
import * as Uuid from "../uuid.ts"
import { isShared } from "../writeZeroes.ts"

const moduleName = "error"

type ErrorType = "failure" | "pending" | "corrupt_data" | "nomem" | "nvme_failure"
type ErrorIoType = OneIoType | "clear" | "all"

interface InjectionSettings {
  readonly type: ErrorType
  readonly count: number
  readonly queueDepth: number
  readonly corruptOffset: number
  readonly corruptValue: number
  readonly nvmeSct: number
  readonly nvmeSc: number
}

const oneIoTypes = ["read", "write", "unmap", "flush"] as const
type OneIoType = (typeof oneIoTypes)[number]

/** The names that `bdev_error_inject_error` has; undefined: SPDK has none. */
const errorTypeOf: Readonly<Record<DeviceOpcode, OneIoType | undefined>> = {
  [Opcode.Read]: "read",
  [Opcode.Write]: "write",
  [Opcode.Flush]: "flush",
  [Opcode.Unmap]: "unmap",
  [Opcode.WriteZeroes]: undefined,
  [Opcode.Reset]: undefined,
  [Opcode.NvmeIo]: undefined
}

class ErrorChannel extends StackedChannel {
  inFlight = 0
  pending: Array<EmbeddedIo> = []
}

class ErrorBdev extends PartBdev {
  readonly moduleName = moduleName
  private readonly injections = new Map<OneIoType, InjectionSettings & { count: number }>()
  private readonly onDestruct: () => void

  constructor(partBase: PartBase, onDestruct: () => void) {
    super(partBase, {
      name: `EE_${partBase.bdev.name}`,
      productName: "Error Injection Disk",
      offsetBlocks: 0,
      numBlocks: partBase.bdev.numBlocks
    })
    this.onDestruct = onDestruct
  }

  override get isImmediate(): boolean {
    return false
  }

  inject(ioType: ErrorIoType, injection: InjectionSettings): void {
    if (ioType === "clear") {
      for (const one of this.injections.values()) one.count = 0
    } else if (ioType === "all") {
      for (const one of oneIoTypes) this.injections.set(one, { ...injection })
    } else this.injections.set(ioType, { ...injection })
  }

  /** Starts what was held back, and holds nothing back any more. */
  resumePending(): void {
    for (const one of this.injections.values()) {
      if (one.type === "pending") one.count = 0
    }
    for (const channel of this.channels.values()) {
      for (const io of takePending(channel)) this.reactor.post(() => this.submit(io))
    }
  }

  override submit(io: EmbeddedIo): void {
    if (io.opcode === Opcode.Reset) {
      this.abortPending()
      return io.finish(success)
    }
    const injection = this.take(io)
    io.kind = 0
    switch (injection?.type) {
      case "failure":
        return io.finish(failed)
      case "nvme_failure":
        return io.finish(nvmeFailure(injection.nvmeSct, injection.nvmeSc))
      case "nomem":
        return io.channel.retryLater(io)
      case "pending":
        errorChannelOf(io.channel).pending.push(io)
        return
      case "corrupt_data":
        if (io.opcode === Opcode.Write) corrupt(io, injection)
        io.kind = 1
    }
    errorChannelOf(io.channel).inFlight++
    this.passDown(io, io.offsetBlocks)
  }

  protected override baseDone(io: EmbeddedIo, status: IoStatus): void {
    errorChannelOf(io.channel).inFlight--
    const isCorrupted = io.kind === 1 && io.opcode === Opcode.Read && status.errno === 0
    const injection = isCorrupted ? this.injections.get("read") : undefined
    if (injection !== undefined) corrupt(io, injection)
    // SPDK's module forgets why the base failed.
    io.finish(status.errno === 0 ? success : failed)
  }

  override onUnregister(): void {
    this.abortPending()
  }

  override makeChannel(thread: ChannelThread): EmbeddedChannel {
    return new ErrorChannel(this, thread)
  }

  override destruct(): void {
    this.onDestruct()
    super.destruct()
  }

  override driverSpecific() {
    return { error_disk: { base_bdev: this.base.name } }
  }

  private take(io: EmbeddedIo): InjectionSettings | undefined {
    const type = errorTypeOf[io.opcode]
    const injection = type === undefined ? undefined : this.injections.get(type)
    if (injection === undefined || injection.count === 0) return undefined
    if (errorChannelOf(io.channel).inFlight < injection.queueDepth) return undefined
    injection.count--
    return injection
  }

  private abortPending(): void {
    for (const channel of this.channels.values()) {
      for (const io of takePending(channel)) io.finish(aborted)
    }
  }
}

// makeChannel of an error bdev makes nothing else.
const errorChannelOf = (channel: EmbeddedChannel): ErrorChannel => channel as ErrorChannel

const takePending = (channel: EmbeddedChannel): ReadonlyArray<EmbeddedIo> => {
  const errorChannel = errorChannelOf(channel)
  const { pending } = errorChannel
  errorChannel.pending = []
  return pending
}

/** Flips bits of one byte of the I/O's memory: of what was read, or, as SPDK does, of what the caller writes. */
const corrupt = (io: EmbeddedIo, { corruptOffset, corruptValue }: InjectionSettings): void => {
  const { memory } = io
  if (memory !== undefined) {
    if (corruptOffset >= io.lengthBlocks * io.channel.bdev.blockSize) return
    if (isShared(memory)) {
      const copy = new SlabMemory(memory.slot, memory.generation, memory.lengthBytes, memory.alignmentBytes)
      io.memory = copy
      flip(copy.bytes, io.memoryOffset + corruptOffset, corruptValue)
    } else flip(memory.bytes, io.memoryOffset + corruptOffset, corruptValue)
    return
  }
  let offset = corruptOffset
  for (const segment of io.segments ?? []) {
    if (offset < segment.lengthBytes) return flip(segment.memory.bytes, segment.offsetBytes + offset, corruptValue)
    offset -= segment.lengthBytes
  }
}

const flip = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = (bytes[at] ?? 0) ^ value
}

interface ErrorConfig {
  readonly baseName: string
  readonly uuid: string | undefined
}

export class ErrorModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "one"
  private readonly registry: BdevRegistry
  private configs: ReadonlyArray<ErrorConfig> = []

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method("bdev_error_create", (params) => trueOrErrno(this.configure(params.base_name, params.uuid)))

  readonly delete = method("bdev_error_delete", ({ name }) =>
    whenGone((done) => this.registry.unregisterByName(name, moduleName, done))
  )

  readonly others = [
    method("bdev_error_inject_error", (params) => {
      const nvmeSct = params.nvme_sct ?? 0
      const nvmeSc = params.nvme_sc ?? 0
      if ((params.error_type === "nvme_failure") === (nvmeSct === 0 && nvmeSc === 0)) {
        return Effect.fail(new RpcFault(-EINVAL, "nvme_sct or nvme_sc should be specified for NVMe error injection"))
      }
      const errno = this.inject(params.name, params.io_type, {
        type: params.error_type,
        count: params.num ?? 1,
        queueDepth: Number(params.queue_depth ?? 0),
        corruptOffset: Number(params.corrupt_offset ?? 0),
        corruptValue: params.corrupt_value ?? 0,
        nvmeSct,
        nvmeSc
      })
      return trueOrErrno(errno)
    }),
    method("bdev_error_resume_pending", ({ name }) => trueOrErrno(this.resumePending(name)))
  ]

  /** 0, also when the base does not exist yet, or a negative errno. */
  private configure(baseName: string, uuid: string | undefined): number {
    if (this.configs.some((config) => config.baseName === baseName)) return -EEXIST
    this.configs = [...this.configs, { baseName, uuid: Uuid.normalize(uuid) }]
    const errno = this.register(baseName)
    if (errno === 0 || errno === -ENODEV) return 0
    this.forget(baseName)
    return errno
  }

  /** 0, -EINVAL, or -ENODEV for a name that is no error bdev's. */
  private inject(name: string, ioType: ErrorIoType, injection: InjectionSettings): number {
    if (injection.type === "corrupt_data" && injection.corruptValue === 0) return -EINVAL
    const bdev = this.find(name)
    if (bdev === undefined) return -ENODEV
    bdev.inject(ioType, injection)
    return 0
  }

  private resumePending(name: string): number {
    const bdev = this.find(name)
    if (bdev === undefined) return -ENODEV
    bdev.resumePending()
    return 0
  }

  readonly examine = (base: EmbeddedBdev): void => {
    if (this.configs.some((config) => config.baseName === base.name)) this.register(base.name)
  }

  configCalls(): ReadonlyArray<Json> {
    return this.configs.map(({ baseName, uuid }) => ({
      method: "bdev_error_create",
      params: { base_name: baseName, ...(uuid === undefined ? {} : { uuid }) }
    }))
  }

  private find(name: string): ErrorBdev | undefined {
    const bdev = this.registry.find(name)
    return bdev instanceof ErrorBdev ? bdev : undefined
  }

  private register(baseName: string): number {
    const base = PartBase.open(this.registry, moduleName, baseName)
    if (typeof base === "number") return base
    const errno = base.add(new ErrorBdev(base, () => this.forget(baseName)))
    if (errno !== 0) base.close()
    return errno
  }

  private forget(baseName: string): void {
    this.configs = this.configs.filter((config) => config.baseName !== baseName)
  }
}
