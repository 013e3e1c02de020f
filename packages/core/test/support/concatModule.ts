/**
 * A bdev module as CONTRIBUTING.md says how to add one: SPDK's raid level "concat", several bases behind each other. An I/O across
 * the end of a base fails; SPDK's bdev layer would cut it at the optimal boundary.
 */
import { Opcode } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import type { EmbeddedBdev } from "../../src/internal/embedded/bdev/bdev.ts"
import type { BdevDescriptor } from "../../src/internal/embedded/bdev/descriptor.ts"
import { type BdevModule, method } from "../../src/internal/embedded/bdev/module.ts"
import type { BdevRegistry } from "../../src/internal/embedded/bdev/registry.ts"
import { openBase, propertiesOfBase, StackedBdev } from "../../src/internal/embedded/bdev/stacked.ts"
import type { EmbeddedIo } from "../../src/internal/embedded/bdev/io.ts"
import { invalidParams, trueOrErrno, whenGone } from "../../src/internal/embedded/rpc/table.ts"
import { EEXIST, failed } from "../../src/internal/embedded/queue/status.ts"

const moduleName = "raid"

interface Config {
  readonly name: string
  readonly baseNames: ReadonlyArray<string>
}

class ConcatBdev extends StackedBdev {
  readonly moduleName = moduleName
  private readonly onDestruct: () => void

  constructor(
    registry: BdevRegistry,
    name: string,
    bases: readonly [EmbeddedBdev, ...ReadonlyArray<EmbeddedBdev>],
    onDestruct: () => void
  ) {
    const numBlocks = bases.reduce((sum, base) => sum + base.numBlocks, 0)
    const uuid = registry.context.reactor.host.uuid()
    const properties = { ...propertiesOfBase(bases[0]), name, uuid, productName: "Raid Volume", numBlocks }
    super(registry, bases, properties, new Set(["read", "write"]))
    this.onDestruct = onDestruct
  }

  override submit(io: EmbeddedIo): void {
    // Read and write are all that this bdev supports.
    if (io.opcode !== Opcode.Read && io.opcode !== Opcode.Write) return io.finish(failed)
    let first = 0
    for (const [index, { numBlocks }] of this.bases.entries()) {
      if (io.offsetBlocks < first + numBlocks) {
        const fits = io.offsetBlocks + io.lengthBlocks <= first + numBlocks
        return fits ? this.passDown(io, io.offsetBlocks - first, index) : io.finish(failed)
      }
      first += numBlocks
    }
  }

  destruct(): void {
    this.onDestruct()
  }
}

export class ConcatModule implements BdevModule {
  readonly name = moduleName
  readonly bases = "many"
  readonly others = []
  private readonly registry: BdevRegistry
  private configs: ReadonlyArray<Config> = []

  constructor(registry: BdevRegistry) {
    this.registry = registry
  }

  readonly create = method("bdev_raid_create", ({ base_bdevs: baseNames, name, raid_level: level }) => {
    if (level !== "concat") return Effect.fail(invalidParams(`raid_level ${level} is none of this module`))
    if (this.configs.some((config) => config.name === name)) return trueOrErrno(-EEXIST)
    const config = { name, baseNames }
    this.configs = [...this.configs, config]
    return trueOrErrno(this.register(config))
  })

  readonly delete = method("bdev_raid_delete", ({ name }) =>
    whenGone((done) => {
      const errno = this.registry.unregisterByName(name, moduleName, done)
      if (errno === 0) this.configs = this.configs.filter((config) => config.name !== name)
      return errno
    })
  )

  readonly examine = (base: EmbeddedBdev): void => {
    for (const config of this.configs.filter(({ baseNames }) => baseNames.includes(base.name))) this.register(config)
  }

  readonly configCalls = () =>
    this.configs.map(({ baseNames, name }) => ({
      method: "bdev_raid_create",
      params: { name, raid_level: "concat", base_bdevs: baseNames }
    }))

  /** 0, also while a base is missing, or a negative errno. */
  private register({ baseNames, name }: Config): number {
    const { registry } = this
    if (baseNames.some((base) => registry.find(base) === undefined)) return 0
    let standing: ReadonlyArray<EmbeddedBdev> = []
    const descriptors: Array<BdevDescriptor> = []
    const letGo = () => {
      for (const descriptor of descriptors) {
        if (descriptor.isWritable) registry.release(descriptor.bdev)
        registry.close(descriptor)
      }
    }
    for (const base of baseNames) {
      const descriptor = openBase(registry, base, false, () => standing)
      const errno = typeof descriptor === "number" ? descriptor : registry.claim(descriptor, moduleName)
      if (typeof descriptor !== "number") descriptors.push(descriptor)
      if (errno !== 0) {
        letGo()
        return errno
      }
    }
    const [first, ...others] = descriptors.map(({ bdev }) => bdev)
    if (first === undefined) return 0
    const bdev = new ConcatBdev(registry, name, [first, ...others], letGo)
    standing = [bdev]
    const errno = registry.register(bdev)
    if (errno !== 0) letGo()
    return errno
  }
}
