/**
 * What spdk_bdev_open_ext gives: the right to use a bdev, and the duty to close it when it goes away.
 */
import type { EmbeddedBdev } from "./bdev.ts"

export type BdevEventType = "removed" | "resized"

export class BdevDescriptor {
  readonly bdev: EmbeddedBdev
  isWritable: boolean
  isClosed = false
  onEvent: (type: BdevEventType) => void

  constructor(bdev: EmbeddedBdev, isWritable: boolean, onEvent: (type: BdevEventType) => void) {
    this.bdev = bdev
    this.isWritable = isWritable
    this.onEvent = onEvent
  }
}
