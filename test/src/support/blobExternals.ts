/**
 * The bdevs that the random commands put under blobs: some fit, some do not, and one is not there. Of fixed names, because blobs keep
 * and show them.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import { pattern } from "./bytes.ts"
import type { RandomSource } from "./random.ts"

interface External {
  readonly name: string
  readonly uuid: string
  readonly sizeClusters: number
  readonly blockSize: number
}

const uuidOf = (last: number): string => `0f5a1c3e-7b2d-4e88-9a61-00000000000${last}`

const fitting: ReadonlyArray<External> = [
  { name: "below_large", uuid: uuidOf(1), sizeClusters: 9, blockSize: 512 },
  { name: "below_small", uuid: uuidOf(2), sizeClusters: 3, blockSize: 512 }
]

/** Half a cluster too many, and blocks larger than the io unit. */
const unfit: ReadonlyArray<External> = [
  { name: "below_uneven", uuid: uuidOf(3), sizeClusters: 2.5, blockSize: 512 },
  { name: "below_coarse", uuid: uuidOf(4), sizeClusters: 3, blockSize: 4096 }
]

const names: ReadonlyArray<string> = fitting.flatMap(({ name, uuid }) => [name, name, uuid])
const refused: ReadonlyArray<string> = [...unfit.map(({ name }) => name), "below_nobody"]

/** A name to put under a blob, or the UUID of what has one. */
export const anyExternal = (random: RandomSource): string => random.pick(random.chance(0.1) ? refused : names)

/** Made for the scope, each with bytes of its own. */
export const makeExternals = (clusterBytes: number) =>
  Effect.forEach(
    [...fitting, ...unfit],
    ({ blockSize, name, sizeClusters, uuid }, index) =>
      Effect.gen(function* () {
        const sizeBytes = sizeClusters * clusterBytes
        yield* Bdev.createMalloc({ name, uuid, blockSize, numBlocks: sizeBytes / blockSize })
        yield* Effect.scoped(
          Effect.flatMap(Bdev.open(name, { write: true }), (bdev) =>
            bdev.writeBytes(0, pattern(sizeBytes, 1000 + index))
          )
        )
      }),
    { discard: true }
  )
