/** What the killed writers of blobs.ts's sibling, blobLoad.ts, write, and how it is told what survived. */
export const roundSlots = 6
export const roundClusters = 3
export const roundClusterBytes = 64 * 1024
export const roundBlockBytes = 4096
export const roundImageBytes = 48 * 2 ** 20
export const roundBlobBytes = roundClusters * roundClusterBytes

/** Each block says which blob, which version and which block it is, over all of its length. */
export const stampBlob = (slot: number, version: number): Uint8Array => {
  const words = new Uint32Array(roundBlobBytes / 4)
  const perBlock = roundBlockBytes / 4
  for (let at = 0; at < words.length; at++) words[at] = (slot << 28) ^ (version << 8) ^ Math.floor(at / perBlock)
  return new Uint8Array(words.buffer)
}

/** The version of every block; fails on one that is torn or of another blob. */
export const versionsOf = (slot: number, bytes: Uint8Array): ReadonlyArray<number> => {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  const perBlock = roundBlockBytes / 4
  return Array.from({ length: words.length / perBlock }, (_, block) => {
    const first = words[block * perBlock] ?? 0
    for (let at = 1; at < perBlock; at++) {
      if (words[block * perBlock + at] !== first) throw new Error(`block ${block} of slot ${slot} is torn`)
    }
    // Never written: a thin blob reads zeroes there.
    if (first === 0) return 0
    const plain = (first ^ (slot << 28) ^ block) >>> 0
    if (plain & 0xff || plain >>> 28) throw new Error(`block ${block} of slot ${slot} is not its own: ${first}`)
    return plain >>> 8
  })
}
