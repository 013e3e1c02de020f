/**
 * The public handles over an open namespace: `NvmeNamespace` by the queue pair of the fiber's thread, `NvmeChannel` by one of its
 * own.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { ByteRange, IoError } from "../../BdevIo.ts"
import type { DmaBuffer } from "../../DmaBuffer.ts"
import type { PassthruResult, QueryError } from "../../NvmeController.ts"
import type {
  DatasetOptions,
  NamespaceCommand,
  NamespaceEvent,
  NamespaceInfo,
  NvmeChannel,
  NvmeNamespace
} from "../../NvmeNamespace.ts"
import type { SpdkThread } from "../../SpdkThread.ts"
import { BdevIoImpl, eventsOf, scopedChannel } from "../io/bdevHandle.ts"
import type { Channel } from "../io/channels.ts"
import type { OpenTarget } from "../io/openTarget.ts"
import { type AdminQueue, decodedOr } from "./adminQueue.ts"
import { AdminOpcode } from "./wire/command.ts"
import type { BlockBytes } from "./dataLength.ts"
import {
  Cns,
  decodeDescriptors,
  identifyBytes,
  identifyNamespace,
  type NamespaceDescriptors,
  namespaceFormat
} from "./wire/identify.ts"
import { compare, copy, datasetManagement, ioCommand, type NamespaceTarget } from "./ioCommands.ts"
import { NvmeNamespaceTypeId } from "./typeIds.ts"

/** What the device says of a namespace now. */
export const namespaceInfo = (
  queue: AdminQueue,
  operation: string,
  nsid: number
): Effect.Effect<NamespaceInfo, QueryError> =>
  Effect.gen(function* () {
    const ask = (cns: number) =>
      queue.run(operation, { opcode: AdminOpcode.Identify, nsid, cdw10: cns, lengthBytes: identifyBytes })
    const { data } = yield* ask(Cns.namespace)
    const { resource } = queue
    const identify = yield* decodedOr(operation, resource, identifyNamespace.decode(data))
    const format = yield* decodedOr(operation, resource, namespaceFormat(identify))
    // Controllers before NVMe 1.3 have no descriptors, and some later ones none of this command.
    const descriptors = yield* ask(Cns.descriptors).pipe(
      Effect.flatMap((answer) => decodedOr(operation, resource, decodeDescriptors(answer.data))),
      Effect.catchIf(
        ({ reason }) =>
          reason.nvme !== undefined && (reason._tag === "InvalidArgument" || reason._tag === "NotSupported"),
        (): Effect.Effect<NamespaceDescriptors> => Effect.succeed({})
      )
    )
    return {
      nguid: identify.nguid,
      eui64: identify.eui64,
      ...descriptors,
      nsid,
      blockSize: format.blockSizeBytes,
      numBlocks: format.numBlocks,
      sizeBytes: format.numBlocks * format.blockSizeBytes,
      metadataBytes: format.metadataBytes,
      identify
    }
  })

const blockBytesOf = ({ blockSize, identify, metadataBytes }: NamespaceInfo): BlockBytes => ({
  blockSize,
  extendedBlockSize: blockSize + (identify.formatted.extendedMetadata === 1 ? metadataBytes : 0)
})

class NvmeIoImpl extends BdevIoImpl {
  protected readonly namespace: NamespaceTarget

  constructor(target: NamespaceTarget) {
    super(target)
    this.namespace = target
  }

  compare(offsetBytes: number, buffer: DmaBuffer): Effect.Effect<void, IoError> {
    return compare(this.namespace, offsetBytes, buffer)
  }

  copy(sources: ReadonlyArray<ByteRange>, destinationOffsetBytes: number): Effect.Effect<void, IoError> {
    return copy(this.namespace, sources, destinationOffsetBytes)
  }

  datasetManagement(ranges: ReadonlyArray<ByteRange>, options: DatasetOptions): Effect.Effect<void, IoError> {
    return datasetManagement(this.namespace, ranges, options)
  }

  io(command: NamespaceCommand): Effect.Effect<PassthruResult, IoError> {
    return ioCommand(this.namespace, command)
  }
}

class NvmeChannelImpl extends NvmeIoImpl implements NvmeChannel {
  readonly thread: SpdkThread | undefined

  constructor(target: NamespaceTarget, channel: Channel) {
    super({ ...target, channel })
    this.thread = channel.thread
  }
}

export class NvmeNamespaceImpl extends NvmeIoImpl implements NvmeNamespace {
  readonly [NvmeNamespaceTypeId] = NvmeNamespaceTypeId
  readonly info: NamespaceInfo
  private readonly queue: AdminQueue

  constructor(blocks: OpenTarget, queue: AdminQueue, info: NamespaceInfo) {
    super({
      bdev: blocks,
      channel: undefined,
      nvme: queue.nvme,
      nsid: info.nsid,
      maxTransferBytes: queue.handle.maxTransferBytes,
      blockBytes: blockBytesOf(info),
      limits: info.identify
    })
    this.queue = queue
    this.info = info
  }

  get nsid(): number {
    return this.info.nsid
  }

  get blockSize(): number {
    return this.target.bdev.blockSize
  }

  get numBlocks(): number {
    return this.target.bdev.numBlocks
  }

  get sizeBytes(): number {
    return this.numBlocks * this.blockSize
  }

  get isRemoved(): boolean {
    return this.target.bdev.removed
  }

  get identify(): Effect.Effect<NamespaceInfo, QueryError> {
    return namespaceInfo(this.queue, "NvmeNamespace.identify", this.nsid)
  }

  get events(): Stream.Stream<NamespaceEvent> {
    return eventsOf(this.target.bdev)
  }

  get channel(): Effect.Effect<NvmeChannel, IoError, Scope.Scope> {
    return Effect.map(scopedChannel(this.target.bdev), (channel) => new NvmeChannelImpl(this.namespace, channel))
  }

  toJSON(): unknown {
    const { blockSize, isRemoved, nsid, numBlocks } = this
    return { _id: "NvmeNamespace", controller: this.queue.resource, nsid, blockSize, numBlocks, isRemoved }
  }
}

/** The number of an NSID that can be opened. */
export const isNsid = (nsid: unknown): nsid is number =>
  typeof nsid === "number" && Number.isInteger(nsid) && nsid >= 1 && nsid < 0xffff_ffff
