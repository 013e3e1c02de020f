/**
 * Split bdevs: a base cut into parts of one size.
 */
import * as Effect from "effect/Effect"
import type { EmbeddedBdev, Json } from "../bdev.ts"
import { type BdevModule, method } from "../module.ts"
import { PartBase, PartBdev } from "../part.ts"
import type { BdevRegistry } from "../registry.ts"
import { invalidParams } from "../../rpc/table.ts"
import { EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, strerror } from "../../queue/status.ts"

const moduleName = "split"

class SplitBdev extends PartBdev {
  readonly moduleName = moduleName

  override driverSpecific() {
    return { split: { base_bdev: this.base.name, offset_blocks: this.offsetBlocks } }
  }
}

interface SplitConfig {
  readonly baseName: string
  readonly count: number
  /** 0: as large as it takes to use all of the base. */
  readonly sizeMiB: number
  base: PartBase | undefined
}

export class SplitModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "one"
  readonly others = []
  private readonly registry: BdevRegistry
  private configs: ReadonlyArray<SplitConfig> = []

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method(
    "bdev_split_create",
    ({ base_bdev: base, split_count: count, split_size_mb: size }) => {
      const made = this.configure(base, count, Number(size ?? 0))
      if (typeof made !== "number") return Effect.succeed(made)
      return Effect.fail(invalidParams(`Failed to create ${count} split bdevs from '${base}': ${strerror(-made)}`))
    },
    { onInvalid: invalidParams() }
  )

  readonly delete = method(
    "bdev_split_delete",
    (params) => {
      const errno = this.unregister(params.base_bdev)
      return errno === 0 ? Effect.succeed(true) : Effect.fail(invalidParams(strerror(-errno)))
    },
    { onInvalid: invalidParams() }
  )

  /** The names of the parts, none when the base does not exist yet, or a negative errno. */
  private configure(baseName: string, count: number, sizeMiB: number): ReadonlyArray<string> | number {
    if (count === 0) return -EINVAL
    if (this.configs.some((config) => config.baseName === baseName)) return -EEXIST
    const config: SplitConfig = { baseName, count, sizeMiB, base: undefined }
    this.configs = [...this.configs, config]
    const errno = this.split(config)
    if (errno !== 0 && errno !== -ENODEV) return errno
    return [...(config.base?.parts ?? [])].map((part) => part.name)
  }

  /** 0 or -ENOENT. Does not wait for the parts to be gone, as SPDK's does not. */
  private unregister(baseName: string): number {
    const config = this.configs.find((config) => config.baseName === baseName)
    if (config === undefined) return -ENOENT
    if (config.base === undefined) this.forget(config)
    else for (const part of [...config.base.parts]) this.registry.unregister(part)
    return 0
  }

  readonly examine = (base: EmbeddedBdev): void => {
    const config = this.configs.find((config) => config.baseName === base.name)
    if (config !== undefined && config.base === undefined) this.split(config)
  }

  configCalls(): ReadonlyArray<Json> {
    return this.configs.map(({ baseName, count, sizeMiB }) => ({
      method: "bdev_split_create",
      params: { base_bdev: baseName, split_count: count, split_size_mb: sizeMiB }
    }))
  }

  private split(config: SplitConfig): number {
    const opened = PartBase.open(this.registry, moduleName, config.baseName, () => this.forget(config))
    if (typeof opened === "number") return opened
    config.base = opened
    const { blockSize, numBlocks } = opened.bdev
    const sizeBytes = config.sizeMiB * 1024 * 1024
    const partBlocks = config.sizeMiB === 0 ? Math.floor(numBlocks / config.count) : sizeBytes / blockSize
    const count = partBlocks === 0 ? 0 : Math.min(config.count, Math.floor(numBlocks / partBlocks))
    let errno = Number.isInteger(partBlocks) ? 0 : -EINVAL
    for (let i = 0; i < count && errno === 0; i++) {
      const part = new SplitBdev(opened, {
        name: `${config.baseName}p${i}`,
        productName: "Split Disk",
        offsetBlocks: i * partBlocks,
        numBlocks: partBlocks
      })
      // What SPDK answers, whatever the reason.
      if (opened.add(part) !== 0) errno = -ENOMEM
    }
    if (errno !== 0) {
      for (const part of [...opened.parts]) this.registry.unregister(part)
    }
    // Nothing stands on the base: it must not stay open.
    if (opened.parts.size === 0) opened.close()
    return errno
  }

  /** The base is closed. */
  private forget(config: SplitConfig): void {
    this.configs = this.configs.filter((other) => other !== config)
  }
}
