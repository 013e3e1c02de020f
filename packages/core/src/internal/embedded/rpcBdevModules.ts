/**
 * The bdev modules of the embedded engine. A new one is a file with a `BdevModule`, and a line here.
 */
import { AioModule } from "./bdevAio.ts"
import { DelayModule } from "./bdevDelay.ts"
import { ErrorModule } from "./bdevError.ts"
import { MallocModule } from "./bdevMalloc.ts"
import type { BdevModule } from "./bdevModule.ts"
import { NullModule } from "./bdevNull.ts"
import { NvmeModule } from "./bdevNvmeModule.ts"
import { PassthruModule } from "./bdevPassthru.ts"
import type { BdevRegistry } from "./bdevRegistry.ts"
import { SplitModule } from "./bdevSplit.ts"
import { nvmeBdevModule } from "./rpcBdevNvme.ts"
import type { RpcTable } from "./rpcTable.ts"

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
