/**
 * SPDK's blobstore by way of the addon. The blobstore package knows what calls mean; here they only cross.
 */
import type { Host, Reply } from "@effect-spdk/native/Host"
import * as Effect from "effect/Effect"
import type { BlobstoreAnswer, Descriptor, DescriptorInfo, EngineBlobstores } from "../engine/engine.ts"

/** What blobstores need of the host. */
export type BlobstoreHost = Pick<Host, "blobstoreCall" | "blobOpen" | "bdevClose">

/** Uninterruptible: the answer may be a resource, and somebody has to take it. */
const ask = (call: (onReply: (reply: Reply) => void) => void): Effect.Effect<Reply> =>
  Effect.uninterruptible(Effect.callback<Reply>((resume) => call((reply) => resume(Effect.succeed(reply)))))

export const makeBlobstores = (host: BlobstoreHost): EngineBlobstores => ({
  open: (call, bdev, args, onProgress) =>
    Effect.map(
      ask((onReply) => host.blobstoreCall(call, 0, args, onReply, onProgress)),
      (reply) => ({ ...answerOf(reply), store: { slot: reply.a, bdev } })
    ),
  call: (store, call, args = {}, onProgress) =>
    Effect.map(
      ask((onReply) => host.blobstoreCall(call, store.slot, args, onReply, onProgress)),
      answerOf
    ),
  openBlob: (store, id, clearMethod, onEvent) =>
    Effect.map(
      ask((onReply) => host.blobOpen(store.slot, { numbers: [id, clearMethod] }, onEvent, onReply)),
      (reply) => ({
        ...answerOf(reply),
        descriptor: reply.status === 0 ? descriptorOf(`${store.bdev}/0x${id.toString(16)}`, reply) : undefined
      })
    ),
  closeBlob: (descriptor) =>
    Effect.map(
      ask((onReply) => host.bdevClose(descriptor.slot, onReply)),
      answerOf
    ),
  callBlob: (descriptor, call, args = {}) =>
    Effect.map(
      ask((onReply) => host.blobstoreCall(`blob.${call}`, descriptor.slot, args, onReply)),
      answerOf
    )
})

const answerOf = ({ bytes, status, text }: Reply): BlobstoreAnswer =>
  bytes === undefined ? { status, text } : { status, text, bytes }

/** Of the numbers that "open" answers, as of `info`. */
const ioUnitsIndex = 3
const readOnlyIndex = 4

const descriptorOf = (name: string, { a, bytes, text }: Reply): Descriptor => {
  const numbers = numbersOf(bytes)
  // Written by our own addon in this process.
  const known: Pick<DescriptorInfo, "blockSizeBytes" | "bufferAlignmentBytes"> = JSON.parse(text)
  return {
    slot: a,
    generation: 1,
    writable: numbers[readOnlyIndex] === 0,
    info: {
      ...known,
      name,
      productName: "SPDK blob",
      numBlocks: numbers[ioUnitsIndex] ?? 0,
      writeUnitBlocks: 1,
      optimalIoBoundaryBlocks: 0,
      hasWriteCache: true,
      supportedIoTypes: ["read", "write", "unmap", "write_zeroes"]
    }
  }
}

/** The numbers of an answer. */
export const numbersOf = (bytes: Uint8Array | undefined): Float64Array =>
  bytes === undefined ? new Float64Array(0) : new Float64Array(new Uint8Array(bytes).buffer)
