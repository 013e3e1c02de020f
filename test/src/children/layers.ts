/** The engine that a child program was told to run on. */
import * as Spdk from "@effect-spdk/core/Spdk"
import type * as SpdkOptions from "@effect-spdk/core/SpdkOptions"

export const engineLayer = (engine: string | undefined, options: SpdkOptions.Options = {}) =>
  engine === "libspdk"
    ? Spdk.layer({ name: "child", memoryMiB: 512, ...options })
    : Spdk.layerEmbedded({ name: "child", memoryMiB: 512, ...options })
