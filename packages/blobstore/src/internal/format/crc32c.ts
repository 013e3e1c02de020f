/** CRC32C by the CPU's instruction, in the convention of SPDK's blobstore: starts from all ones, inverted at the end. */
import { crc32c as update } from "@node-rs/crc32"
import { pageBytes } from "./layout.ts"

/** `initial` is the CRC of the bytes before these. */
export const crc32c = (bytes: Uint8Array, initial?: number): number => update(bytes, initial) >>> 0

/** Of a super block or a metadata page: all bytes but the last four, which hold it. */
export const pageCrc = (page: Uint8Array): number => crc32c(page.subarray(0, pageBytes - 4))
