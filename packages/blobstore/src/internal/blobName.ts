import type { BlobId } from "./driver.ts"

/** A blob in errors, in both drivers and above them: its bdev, and its id as SPDK prints it. */
export const blobName = (bdev: string, id: BlobId): string =>
  Number.isSafeInteger(id) && id >= 0 ? `${bdev}/0x${id.toString(16)}` : `${bdev}/${String(id)}`
