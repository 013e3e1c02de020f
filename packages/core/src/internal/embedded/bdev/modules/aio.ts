/**
 * AIO bdevs: a disk in a file. Reads and writes go through Node's thread pool straight between the file and the
 * caller's memory.
 *
 * Durability: a write that has completed is in the page cache, where it survives the process but not the machine. A
 * flush that has completed means fdatasync: everything that had completed before it is on disk. Once one has failed, all later ones
 * fail, too.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import * as fs from "node:fs"
import { EmbeddedBdev, type BdevProperties, type IoType, type Json } from "../bdev.ts"
import { type BdevModule, method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import { FileTransfer } from "./fileTransfer.ts"
import type { EmbeddedIo } from "../io.ts"
import { orErrno, trueOrErrno, whenGone } from "../../rpc/table.ts"
import { EINVAL, ENODEV, ENOTSUP, errnoFailure, errnoOf, failed, type IoStatus, success } from "../../queue/status.ts"
import * as Uuid from "../uuid.ts"

const moduleName = "aio"

const ioTypes: ReadonlySet<IoType> = new Set<IoType>(["read", "write", "flush", "reset"])
const ioTypesWithFallocate: ReadonlySet<IoType> = new Set<IoType>([...ioTypes, "unmap", "write_zeroes"])

interface AioSettings {
  readonly name: string
  readonly filename: string
  /** 0: that of the device, which a file has none of. */
  readonly blockSize: number
  readonly isReadonly: boolean
  readonly fallocate: boolean
  readonly nowait: boolean
  readonly uuid: string | undefined
}

class AioBdev extends EmbeddedBdev {
  readonly moduleName = moduleName
  readonly moduleIoTypes: ReadonlySet<IoType>
  readonly isImmediate = false
  readonly fd: number
  private readonly registry: BdevRegistry
  private readonly options: AioSettings
  private readonly freeTransfers: Array<FileTransfer> = []
  /** Taken, and not handed to the thread pool yet. */
  private nextGroup: Array<EmbeddedIo> = []
  private inFlight = 0
  private resets: Array<EmbeddedIo> = []
  /**
   * Linux reports a failed write-back once, and may have dropped the pages: a flush that succeeds after that says nothing of them. So
   * every flush fails from then on, until the bdev is made anew.
   */
  private lostWrites: IoStatus | undefined = undefined

  constructor(registry: BdevRegistry, properties: BdevProperties, options: AioSettings, fd: number) {
    super(registry.context.reactor, properties)
    this.moduleIoTypes = options.fallocate ? ioTypesWithFallocate : ioTypes
    this.registry = registry
    this.options = options
    this.fd = fd
  }

  submit(io: EmbeddedIo): void {
    switch (io.opcode) {
      case Opcode.Read:
        return this.transfer(io)
      case Opcode.Write:
      case Opcode.Unmap:
      case Opcode.WriteZeroes:
        return this.options.isReadonly ? io.finish(failed) : this.transfer(io)
      case Opcode.Flush:
        this.inFlight++
        return fs.fdatasync(this.fd, (error) => {
          if (error !== null) this.lostWrites ??= errnoFailure(errnoOf(error))
          this.ended(io, this.lostWrites ?? success)
        })
      case Opcode.Reset:
        this.resets.push(io)
        return this.finishResets()
      case Opcode.NvmeIo:
        return io.finish(failed)
      default:
        return io.refuse(io.opcode)
    }
  }

  destruct(): void {
    // There is no I/O any more; what close(2) could report, fdatasync has.
    fs.close(this.fd, () => {})
  }

  /** 0 or a negative errno. Takes over the file's size; a file without any is gone. */
  rescan(): number {
    const sizeBytes = sizeOf(this.fd)
    if (sizeBytes === 0) {
      this.registry.context.log("error", `${this.name}: hot-remove detected, unregistering bdev`)
      this.registry.unregister(this)
      return 0
    }
    return this.registry.resize(this, Math.floor(sizeBytes / this.blockSize))
  }

  override driverSpecific() {
    const { fallocate, filename, isReadonly, nowait } = this.options
    return {
      aio: { filename, block_size_override: this.options.blockSize !== 0, readonly: isReadonly, fallocate, nowait }
    }
  }

  configCall(): Json {
    const { blockSize, fallocate, filename, isReadonly, nowait } = this.options
    return {
      method: "bdev_aio_create",
      params: {
        name: this.name,
        ...(blockSize === 0 ? {} : { block_size: this.blockSize }),
        filename,
        readonly: isReadonly,
        fallocate,
        uuid: this.properties.uuid,
        nowait
      }
    }
  }

  /**
   * One at a time starts at once. Several are handed to the thread pool together, when this turn of Node's loop ends:
   * its threads then find the next one waiting, where one by one each would sleep and have to be woken.
   */
  private transfer(io: EmbeddedIo): void {
    this.inFlight++
    if (this.inFlight === 1) return this.start(io)
    if (this.nextGroup.push(io) === 1) setImmediate(this.startGroup)
  }

  private readonly startGroup = (): void => {
    const group = this.nextGroup
    this.nextGroup = []
    for (const io of group) this.start(io)
  }

  private start(io: EmbeddedIo): void {
    const transfer = this.freeTransfers.pop() ?? new FileTransfer(this.fd, this.transferred)
    transfer.start(io, io.offsetBlocks * this.blockSize, io.lengthBlocks * this.blockSize)
  }

  private readonly transferred = (transfer: FileTransfer, io: EmbeddedIo, status: IoStatus): void => {
    this.freeTransfers.push(transfer)
    this.ended(io, status)
  }

  private ended(io: EmbeddedIo, status: IoStatus): void {
    this.inFlight--
    io.finish(status.errno === 0 ? status : this.explain(status))
    if (this.resets.length > 0) this.finishResets()
  }

  /** A failure because there is no device left is a removal. */
  private explain(status: IoStatus): IoStatus {
    if (sizeOf(this.fd) !== 0) return status
    if (this.state === "ready") this.rescan()
    return errnoFailure(ENODEV)
  }

  private finishResets(): void {
    if (this.inFlight > 0) return
    const resets = this.resets
    this.resets = []
    for (const io of resets) this.reactor.post(() => io.finish(success))
  }
}

/** Of a regular file or a block device; 0 for anything else. */
const sizeOf = (fd: number): number => {
  try {
    const stat = fs.fstatSync(fd)
    if (stat.isFile()) return stat.size
    return stat.isBlockDevice() ? Number(readSys(stat.rdev, "size") ?? 0) * 512 : 0
  } catch {
    return 0
  }
}

/** What a device says of its block size; 0 for a file. */
const detectBlockSize = (fd: number): number => {
  const stat = fs.fstatSync(fd)
  return stat.isBlockDevice() ? Number(readSys(stat.rdev, "queue/logical_block_size") ?? 0) : 0
}

/** Node has no ioctl; Linux tells the same in sysfs. */
const readSys = (rdev: number, file: string): string | undefined => {
  const major = (rdev >>> 8) & 0xfff
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)
  try {
    return fs.readFileSync(`/sys/dev/block/${major}:${minor}/${file}`, "utf8").trim()
  } catch {
    return undefined
  }
}

export class AioModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "none"
  readonly examine = undefined
  private readonly registry: BdevRegistry

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method("bdev_aio_create", (params) => {
    const made = make(this.registry, {
      name: params.name,
      filename: params.filename,
      blockSize: params.block_size ?? 0,
      isReadonly: params.readonly ?? false,
      fallocate: params.fallocate ?? false,
      nowait: params.nowait ?? false,
      uuid: params.uuid
    })
    return orErrno(made, ({ name }) => name)
  })

  readonly delete = method("bdev_aio_delete", ({ name }) =>
    whenGone((done) => this.registry.unregisterByName(name, moduleName, done))
  )

  readonly others = [method("bdev_aio_rescan", ({ name }) => trueOrErrno(rescan(this.registry, name)))]

  /** SPDK's module writes its bdevs one by one. */
  readonly configCalls = (): ReadonlyArray<Json> =>
    this.registry.all.flatMap((bdev) => (bdev instanceof AioBdev ? [bdev.configCall()] : []))
}

/** The bdev, or a negative errno. */
const make = (registry: BdevRegistry, options: AioSettings): EmbeddedBdev | number => {
  let fd: number
  try {
    // So that opening a named pipe does not wait for its other end.
    fd = fs.openSync(
      options.filename,
      (options.isReadonly ? fs.constants.O_RDONLY : fs.constants.O_RDWR) | fs.constants.O_NONBLOCK
    )
  } catch (error) {
    return -errnoOf(error)
  }
  const made = register(registry, options, fd)
  if (typeof made === "number") fs.closeSync(fd)
  return made
}

const register = (registry: BdevRegistry, options: AioSettings, fd: number): EmbeddedBdev | number => {
  if (options.nowait && !fs.fstatSync(fd).isBlockDevice()) return -ENOTSUP
  const detected = detectBlockSize(fd)
  const blockSize = options.blockSize === 0 ? detected : options.blockSize
  if (blockSize < 512 || blockSize < detected || !Number.isInteger(Math.log2(blockSize))) return -EINVAL
  const sizeBytes = sizeOf(fd)
  if (sizeBytes % blockSize !== 0) return -EINVAL
  const bdev = new AioBdev(
    registry,
    {
      name: options.name,
      uuid: Uuid.normalize(options.uuid) ?? registry.context.reactor.host.uuid(),
      productName: "AIO disk",
      blockSize,
      numBlocks: sizeBytes / blockSize,
      hasWriteCache: true,
      alignmentBytes: detected === 0 ? blockSize : detected
    },
    options,
    fd
  )
  const errno = registry.register(bdev)
  return errno === 0 ? bdev : errno
}

/** 0 or a negative errno. */
const rescan = (registry: BdevRegistry, name: string): number => {
  const descriptor = registry.open(name, false)
  if (typeof descriptor === "number") return descriptor
  const errno = descriptor.bdev instanceof AioBdev ? descriptor.bdev.rescan() : -ENODEV
  registry.close(descriptor)
  return errno
}
