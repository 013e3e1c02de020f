/**
 * Into how many parts of what size a bdev can be split.
 */

const MiB = 1024 * 1024

/** SPDK makes one after the other without a pause, and takes longer for each: these take it three seconds. */
const maxParts = 8192

/** As `bdev_get_bdevs` says it. */
export interface SplitBase {
  readonly name: string
  /** In bytes. */
  readonly block_size: number
  readonly num_blocks: number
}

export interface SplitFields {
  readonly count: number
  readonly sizeMiB: number | undefined
}

/** Why a bdev cannot be split like that: SPDK divides by the size of a part that has no block. */
export const splitIssue = (
  { block_size: blockSize, name, num_blocks: numBlocks }: SplitBase,
  { count, sizeMiB }: SplitFields
): { readonly field: keyof SplitFields; readonly rule: string } | undefined => {
  if (!Number.isInteger(count) || count < 1 || count > maxParts) {
    return { field: "count", rule: `is not a whole number from 1 to ${maxParts}` }
  }
  if (sizeMiB === undefined) {
    return count > numBlocks ? { field: "count", rule: `is more than the ${numBlocks} blocks of "${name}"` } : undefined
  }
  if (!Number.isSafeInteger(sizeMiB) || sizeMiB < 1) return { field: "sizeMiB", rule: "is not a whole number above 0" }
  const baseBytes = numBlocks * blockSize
  if (!Number.isSafeInteger(sizeMiB * MiB) || sizeMiB * MiB > baseBytes) {
    return { field: "sizeMiB", rule: `is more than "${name}" has, ${baseBytes} bytes` }
  }
  if ((sizeMiB * MiB) % blockSize !== 0) {
    return { field: "sizeMiB", rule: `is not a multiple of the block size ${blockSize} of "${name}"` }
  }
  const fit = Math.floor(baseBytes / (sizeMiB * MiB))
  return count > fit
    ? { field: "count", rule: `is more than the ${fit} parts of ${sizeMiB} MiB in "${name}"` }
    : undefined
}
