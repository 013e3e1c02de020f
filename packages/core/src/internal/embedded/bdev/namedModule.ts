/**
 * What passthru and delay have in common: how their bdevs are configured.
 */
import type { EmbeddedBdev, Json } from "./bdev.ts"
import type { BdevDescriptor } from "./descriptor.ts"
import type { BdevModule, ModuleMethods } from "./module.ts"
import type { BdevRegistry } from "./registry.ts"
import { openBase, type StackedBdev } from "./stacked.ts"
import { EEXIST, ENODEV } from "../queue/status.ts"

/**
 * A module whose bdevs are configured by the name of their base, which may not exist yet. As in SPDK, a name stays
 * configured when its base goes away, or refuses to be claimed: the bdev comes when a base of that name does.
 */
export abstract class NamedModule<
  Config extends { readonly name: string; readonly baseName: string },
  Made extends StackedBdev
> implements BdevModule {
  abstract readonly name: string
  readonly bases = "one"
  abstract readonly create: ModuleMethods
  abstract readonly delete: ModuleMethods
  abstract readonly others: ReadonlyArray<ModuleMethods>
  protected readonly registry: BdevRegistry
  private readonly configs: Array<Config> = []
  protected readonly bdevs = new Set<Made>()

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  protected abstract makeBdev(config: Config, base: EmbeddedBdev, onDestruct: () => void): Made
  abstract configCalls(): ReadonlyArray<Json>

  /** 0, or a negative errno. */
  protected configure(config: Config): number {
    if (this.configs.some(({ name }) => name === config.name)) return -EEXIST
    this.configs.push(config)
    const errno = this.registerOn(config.baseName)
    return errno === -ENODEV ? 0 : errno
  }

  protected forget(name: string, onDone: (errno: number) => void): number {
    const errno = this.registry.unregisterByName(name, this.name, onDone)
    const index = this.configs.findIndex((config) => config.name === name)
    if (errno === 0 && index !== -1) this.configs.splice(index, 1)
    return errno
  }

  readonly examine = (base: EmbeddedBdev): void => {
    this.registerOn(base.name)
  }

  private registerOn(baseName: string): number {
    let errno = 0
    for (const config of this.configs.filter((config) => config.baseName === baseName)) {
      errno = this.registerOne(config)
      if (errno !== 0) break
    }
    return errno
  }

  private registerOne(config: Config): number {
    const { registry } = this
    let standing: ReadonlyArray<Made> = []
    const descriptor = openBase(registry, config.baseName, true, () => standing)
    if (typeof descriptor === "number") return descriptor
    const errno = registry.claim(descriptor, this.name)
    if (errno !== 0) {
      registry.close(descriptor)
      return errno
    }
    const bdev = this.makeBdev(config, descriptor.bdev, () => {
      this.bdevs.delete(bdev)
      this.letGo(descriptor)
    })
    standing = [bdev]
    const registered = registry.register(bdev)
    if (registered === 0) this.bdevs.add(bdev)
    else this.letGo(descriptor)
    return registered
  }

  private letGo(descriptor: BdevDescriptor): void {
    this.registry.release(descriptor.bdev)
    this.registry.close(descriptor)
  }
}
