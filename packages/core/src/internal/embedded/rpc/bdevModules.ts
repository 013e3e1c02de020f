/**
 * The bdev modules of the embedded engine. A new one is a file with a `BdevModule`, and a line here.
 */
import { AioModule } from "../bdev/modules/aio.ts"
import { DelayModule } from "../bdev/modules/delay.ts"
import { ErrorModule } from "../bdev/modules/error.ts"
import { MallocModule } from "../bdev/modules/malloc.ts"
import type { BdevModule } from "../bdev/module.ts"
import { NullModule } from "../bdev/modules/null.ts"
import { NvmeModule } from "../bdev/modules/nvmeModule.ts"
import { PassthruModule } from "../bdev/modules/passthru.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { SplitModule } from "../bdev/modules/split.ts"
import { nvmeBdevModule } from "./bdevNvme.ts"
import type { RpcTable } from "./table.ts"

export const addBdevModules = (
  table: RpcTable,
  registry: BdevRegistry,
  more: ReadonlyArray<BdevModule>
): NvmeModule => {
  const nvme = new NvmeModule(registry)
  const modules: ReadonlyArray<BdevModule> = [
    new PassthruModule(registry),
    new ErrorModule(registry),
    new SplitModule(registry),
    new DelayModule(registry),
    nvmeBdevModule(nvme, registry),
    new NullModule(registry),
    new MallocModule(registry),
    new AioModule(registry),
    ...more
  ]
  for (const module of modules) {
    for (const add of [module.create, module.delete, ...module.others]) add(table)
  }
  registry.modules = modules
  return nvme
}
