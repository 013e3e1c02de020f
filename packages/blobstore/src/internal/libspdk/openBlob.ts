/**
 * An open blob of SPDK's blobstore: I/O over the rings, metadata by calls to SPDK's app thread.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import type { BlobstoreHandle, BlobCall, BlobstoreArguments, Descriptor, Engine } from "@effect-spdk/core/Engine"
import { type EngineBlobstores, numbersOf, openBlocks, type OpenBlocks } from "@effect-spdk/core/Engine"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import { blobName } from "../blobName.ts"
import type { BlobId, DriverBlobInfo, ClearMethod, OpenBlob, Parent, Xattrs } from "../driver.ts"
import { encodeText } from "../format/text.ts"
import { blobClearMethods, decodeXattrs } from "./encoding.ts"
import { check, errno, errorOf, type Meaning } from "./errors.ts"

/** What is open here, and what it was opened by. */
export interface OpenBlobContext {
  readonly engine: Engine
  readonly blobstores: EngineBlobstores
  readonly handle: BlobstoreHandle
  /** Of the bdev, where it has one. */
  readonly flush: Effect.Effect<void, IoError>
}

/** Of the numbers that `info` of a blob answers. */
const at = { clusters: 1, allocated: 2, readOnly: 4, thin: 5, snapshot: 6, clone: 7, parent: 9 } as const

export const openBlob = (
  store: OpenBlobContext,
  id: BlobId,
  clearMethod: ClearMethod
): Effect.Effect<OpenBlob, SpdkError> => {
  const { blobstores, engine, handle } = store
  const resource = blobName(handle.bdev, id)
  const open = (onEvent: Parameters<EngineBlobstores["openBlob"]>[3]): Effect.Effect<Descriptor, SpdkError> =>
    Effect.flatMap(blobstores.openBlob(handle, id, blobClearMethods[clearMethod], onEvent), (answer) =>
      answer.descriptor === undefined
        ? Effect.fail(openError(answer.status, resource))
        : Effect.succeed(answer.descriptor)
    )
  const close = (descriptor: Descriptor): Effect.Effect<void, SpdkError> =>
    Effect.flatMap(blobstores.closeBlob(descriptor), (answer) => Effect.asVoid(check(answer, "Blob.close", resource)))
  return Effect.map(
    openBlocks({ engine, open, close, operation: "Blob", noun: "blob" }),
    (blocks) => new LibspdkBlob(store, id, blocks)
  )
}

/** The arguments are an id and no more, so that EINVAL is about what lies on the device. */
const openError = (status: number, resource: string): SpdkError =>
  errorOf(status, "Blobstore.open", resource, status === errno.ENODEV ? missingSnapshot : damagedBlob)

const damagedBlob: Meaning = {
  damage: { where: "the metadata of the blob", rule: "is damaged, or names an external snapshot that does not fit" }
}

const missingSnapshot: Meaning = { detail: "the bdev that is its external snapshot cannot be opened" }

/** Where a call is of another name above. */
const publicNames: Partial<Record<BlobCall, string>> = {
  xattrs: "xattrs.entries",
  setXattr: "xattrs.set",
  removeXattr: "xattrs.remove"
}

class LibspdkBlob implements OpenBlob {
  readonly id: BlobId
  readonly io: OpenBlob["io"]
  readonly channel: OpenBlob["channel"]
  readonly close: Effect.Effect<void, SpdkError>
  private readonly store: OpenBlobContext
  private readonly blocks: OpenBlocks<SpdkError>
  private readonly resource: string

  constructor(store: OpenBlobContext, id: BlobId, blocks: OpenBlocks<SpdkError>) {
    this.store = store
    this.id = id
    this.blocks = blocks
    this.resource = blobName(store.handle.bdev, id)
    this.io = blocks.io
    this.channel = blocks.channel
    this.close = blocks.close
  }

  get info(): Effect.Effect<DriverBlobInfo, SpdkError> {
    return Effect.map(this.call("info", {}, {}), ({ bytes, text }) => {
      const numbers = numbersOf(bytes)
      return {
        id: this.id,
        clusters: numbers[at.clusters] ?? 0,
        allocatedClusters: numbers[at.allocated] ?? 0,
        isReadOnly: numbers[at.readOnly] === 1,
        isThin: numbers[at.thin] === 1,
        isSnapshot: numbers[at.snapshot] === 1,
        isClone: numbers[at.clone] === 1,
        parent: parentOf(numbers[at.parent], text)
      }
    })
  }

  readonly resize = (clusters: number): Effect.Effect<void, SpdkError> =>
    Effect.flatMap(
      this.store.blobstores.callBlob(this.blocks.descriptor, "resize", { numbers: [clusters] }),
      (answer) => {
        // Also of a failure: a smaller size may be in memory that could not be written.
        const ioUnits = numbersOf(answer.bytes)[0]
        if (ioUnits !== undefined) this.blocks.setNumBlocks(ioUnits)
        return Effect.asVoid(check(answer, "Blob.resize", this.resource, { readOnly: true }))
      }
    )

  get sync(): Effect.Effect<void, SpdkError> {
    return Effect.andThen(this.call("sync", {}, {}), this.store.flush)
  }

  get setReadOnly(): Effect.Effect<void, SpdkError> {
    return Effect.map(this.call("setReadOnly", {}, {}), () => this.blocks.setWritable(false))
  }

  get xattrs(): Effect.Effect<Xattrs, SpdkError> {
    return Effect.map(this.call("xattrs", {}, {}), ({ bytes }) => decodeXattrs(bytes))
  }

  readonly setXattr = (name: string, value: Uint8Array): Effect.Effect<void, SpdkError> =>
    Effect.asVoid(
      this.call(
        "setXattr",
        { values: [encodeText(name), value] },
        { readOnly: true, field: "name", rule: "is empty, or has a NUL in it" }
      )
    )

  readonly removeXattr = (name: string): Effect.Effect<void, SpdkError> =>
    Effect.asVoid(
      this.call(
        "removeXattr",
        { values: [encodeText(name)] },
        { readOnly: true, field: "name", rule: "is empty, or has a NUL in it" }
      )
    )

  readonly nextAllocated = (ioUnit: number) => this.next("nextAllocated", ioUnit)

  readonly nextUnallocated = (ioUnit: number) => this.next("nextUnallocated", ioUnit)

  private next(call: "nextAllocated" | "nextUnallocated", ioUnit: number) {
    const asked = this.store.blobstores.callBlob(this.blocks.descriptor, call, { numbers: [ioUnit] })
    return Effect.flatMap(asked, (answer): Effect.Effect<number | undefined, SpdkError> =>
      answer.status === errno.ENOENT
        ? Effect.undefined
        : Effect.map(check(answer, `Blob.${call}`, this.resource), ({ bytes }) => numbersOf(bytes)[0])
    )
  }

  private call(call: BlobCall, args: BlobstoreArguments, meaning: Meaning) {
    return Effect.flatMap(this.store.blobstores.callBlob(this.blocks.descriptor, call, args), (answer) =>
      check(answer, `Blob.${publicNames[call] ?? call}`, this.resource, meaning)
    )
  }
}

/** From the number of the snapshot, or 0, and the name of the external one, or "". */
export const parentOf = (id: number | undefined, external: string): Parent => {
  if (external !== "") return { _tag: "External", bdev: external }
  return id === undefined || id === 0 ? { _tag: "None" } : { _tag: "Snapshot", id }
}
