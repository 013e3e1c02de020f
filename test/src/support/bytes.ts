/** Bytes that tests write and compare. No dependency, so that child programs can use it. */

/** `length` bytes that depend on the seed and repeat with no short period. */
export const pattern = (length: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  let state = (Math.imul(seed, 2654435761) + 0x9e3779b9) >>> 0 || 1
  for (let index = 0; index < length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[index] = state >>> 24
  }
  return bytes
}
