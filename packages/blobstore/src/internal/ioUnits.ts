/** A store keeps the io unit it was made with, the block size of the device of then. The device of now may have another. */
import type { Bdev } from "@effect-spdk/core/Bdev"
import { failInvalid, type InvalidArgument, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { StoreDriver } from "./driver.ts"
import { pageBytes } from "./format/layout.ts"
import { decodeSuperBlock } from "./format/superBlock.ts"
import type { Place } from "./reasons.ts"

/**
 * Metadata pages have 4096 bytes, and no device writes less than a block. SPDK divides the one by the other without looking: with larger
 * blocks it reads and writes none, and calls that success.
 */
export const checkBlocks = (place: Place, { blockSize, name }: Bdev): Effect.Effect<void, SpdkError<InvalidArgument>> =>
  pageBytes % blockSize === 0
    ? Effect.void
    : failInvalid(place.operation, "bdev", `has blocks of ${blockSize} bytes, not a divisor of ${pageBytes}`, name)

/**
 * Refuses a device on which the driver could not read or write single io units. The portable driver takes any whole number of
 * blocks for one; SPDK mixes the two up, and reads and writes elsewhere. What is no store is left to the load.
 */
export const checkIoUnits = (place: Place, bdev: Bdev, driver: StoreDriver["kind"]): Effect.Effect<void, SpdkError> => {
  if (bdev.sizeBytes < pageBytes) return Effect.void
  return Effect.flatMap(bdev.readBytes(0, pageBytes), (bytes): Effect.Effect<void, SpdkError> => {
    const decoded = decodeSuperBlock(bytes, bdev.sizeBytes)
    if (Result.isFailure(decoded)) return Effect.void
    const { blockSize } = bdev
    const unit = decoded.success.ioUnitSize
    if (driver === "portable" ? unit % blockSize === 0 : unit === blockSize) return Effect.void
    const hint = driver === "libspdk" && unit % blockSize === 0 ? "; the portable driver can load it" : ""
    const rule = `has blocks of ${blockSize} bytes, which do not fit the store's io units of ${unit}${hint}`
    return failInvalid(place.operation, "bdev", rule, bdev.name, place.resource)
  })
}
