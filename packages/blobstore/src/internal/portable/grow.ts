/** Taking the space that the device has gained, and giving up the store: the super block and the masks. */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import type { BitSet } from "../format/bitSet.ts"
import * as L from "../format/layout.ts"
import { encodeMask, maskPages } from "../format/mask.ts"
import { noSpace } from "./errors.ts"
import type { Store } from "./store.ts"

const grownMask = (store: Store) => {
  const { sizeBytes } = store.device.bdev
  const clusters = Math.floor(sizeBytes / store.clusterBytes)
  const { usedBlobIdMaskStart, usedClusterMaskStart } = store.superBlock
  const pages = maskPages(clusters, store.pageBytes)
  return { sizeBytes, clusters, pages, fits: pages <= usedBlobIdMaskStart - usedClusterMaskStart }
}

/** Whether there is more that the mask of clusters has room for. */
export const hasGrown = (store: Store): boolean => {
  const { fits, sizeBytes } = grownMask(store)
  return fits && sizeBytes > store.superBlock.sizeBytes
}

/** The store is unclean afterwards: its mask on the device is that of before. */
export const grow = (store: Store): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { clusters, fits, pages, sizeBytes } = grownMask(store)
    if (sizeBytes === store.superBlock.sizeBytes) return Effect.void
    if (sizeBytes < store.superBlock.sizeBytes) {
      return Effect.fail(noSpace("Blobstore.grow", "the device has become smaller than the store"))
    }
    if (!fits) return Effect.fail(noSpace("Blobstore.grow", "the cluster mask has no room for more clusters"))
    return Effect.map(store.writeSuper({ clean: false, sizeBytes, usedClusterMaskLength: pages }), () => {
      store.growClusters(clusters)
    })
  })

/**
 * Writes the masks, and then that they are right. A store that nobody changed has them on the device, and one whose metadata
 * could not be written is left to the recovery of the next load.
 */
export const writeClean = (store: Store): Effect.Effect<void, IoError> =>
  Effect.suspend(() => {
    const { device, pageBytes, superBlock } = store
    if (store.isClean || store.suspect) return Effect.void
    const { maskType } = L
    const mask = (type: L.MaskType, bits: BitSet, start: number, pages: number) =>
      pages === 0 ? Effect.void : device.write(start * pageBytes, encodeMask(type, bits, pages, pageBytes))
    const { usedBlobIdMaskLength, usedBlobIdMaskStart, usedClusterMaskLength, usedClusterMaskStart } = superBlock
    return mask(maskType.usedPages, store.usedPages, superBlock.usedPageMaskStart, superBlock.usedPageMaskLength).pipe(
      Effect.andThen(mask(maskType.usedBlobIds, store.usedBlobIds, usedBlobIdMaskStart, usedBlobIdMaskLength)),
      Effect.andThen(mask(maskType.usedClusters, store.usedClusters, usedClusterMaskStart, usedClusterMaskLength)),
      Effect.andThen(device.flush),
      Effect.andThen(store.writeSuper({ clean: true }))
    )
  })
