/**
 * What a handle does its I/O by once it is released. Handles swap it in, so that the path of one I/O checks nothing.
 */
import type { BlobBlockIo } from "./driver.ts"
import * as Effect from "effect/Effect"
import { releasedBlob } from "./reasons.ts"

export const releasedIo = (resource: string): BlobBlockIo => {
  const fail = (operation: string) => () => Effect.fail(releasedBlob(operation, resource))
  return {
    read: fail("Blob.read"),
    write: fail("Blob.write"),
    readv: fail("Blob.readv"),
    writev: fail("Blob.writev"),
    unmap: fail("Blob.unmap"),
    writeZeroes: fail("Blob.writeZeroes"),
    readBatch: fail("Blob.readBatch"),
    writeBatch: fail("Blob.writeBatch"),
    prepareReads: fail("Blob.prepareReads"),
    prepareWrites: fail("Blob.prepareWrites")
  }
}
