/**
 * Passthru bdevs: the base under another name.
 */
import { type EmbeddedBdev, ioTypes, type Json } from "../bdev.ts"
import { method } from "../module.ts"
import type { BdevRegistry } from "../registry.ts"
import { allIoTypes, propertiesOfBase, StackedBdev } from "../stacked.ts"
import { NamedModule } from "../namedModule.ts"
import { nameOrErrno, whenGone } from "../../rpc/table.ts"
import * as Uuid from "../uuid.ts"

const moduleName = "passthru"

const namespace = "7e25812e-c8c0-4d3f-8599-16d790555b85"

class PassthruBdev extends StackedBdev {
  readonly moduleName = moduleName
  private readonly onDestruct: () => void

  constructor(
    registry: BdevRegistry,
    base: EmbeddedBdev,
    name: string,
    uuid: string | undefined,
    onDestruct: () => void
  ) {
    super(
      registry,
      [base],
      {
        ...propertiesOfBase(base),
        name,
        uuid: uuid ?? Uuid.derive(namespace, Uuid.toBytes(base.properties.uuid)),
        productName: "passthru"
      },
      allIoTypes(base, ioTypes)
    )
    this.onDestruct = onDestruct
  }

  destruct(): void {
    this.onDestruct()
  }

  override driverSpecific() {
    return { passthru: { name: this.name, base_bdev_name: this.base.name } }
  }
}

interface PassthruConfig {
  readonly name: string
  readonly baseName: string
  readonly uuid: string | undefined
}

export class PassthruModule extends NamedModule<PassthruConfig, PassthruBdev> {
  readonly name = moduleName
  readonly others = []

  readonly create = method("bdev_passthru_create", ({ base_bdev_name: baseName, name, uuid }) =>
    nameOrErrno(this.configure({ name, baseName, uuid }), name)
  )

  readonly delete = method("bdev_passthru_delete", ({ name }) => whenGone((done) => this.forget(name, done)))

  protected makeBdev({ name, uuid }: PassthruConfig, base: EmbeddedBdev, onDestruct: () => void): PassthruBdev {
    return new PassthruBdev(this.registry, base, name, Uuid.normalize(uuid), onDestruct)
  }

  configCalls(): ReadonlyArray<Json> {
    return [...this.bdevs].map((bdev) => ({
      method: "bdev_passthru_create",
      params: {
        base_bdev_name: bdev.base.name,
        name: bdev.name,
        uuid: bdev.properties.uuid
      }
    }))
  }
}
