/** Registers the NVMe suites for an engine as host, against each of the targets that there are. */
import { embedded, libspdk } from "./engines.ts"
import type { NvmeSuite } from "./nvmeSuite.ts"
import { embeddedTgt, nvmfTgt, nvmfTgtTool } from "./nvmfTarget.ts"
import { withTool } from "./spdkTools.ts"

export const embeddedNvme = (name: string, suite: NvmeSuite): void =>
  withTool(nvmfTgtTool, `embedded ${name}`, () =>
    embedded(`${name} with nvmf_tgt`, (full, layer, capabilities) => suite(full, layer, capabilities, nvmfTgt))
  )

export const libspdkNvme = (name: string, suite: NvmeSuite): void =>
  withTool(nvmfTgtTool, `libspdk ${name}`, () =>
    libspdk(`${name} with nvmf_tgt`, (full, layer, capabilities) => suite(full, layer, capabilities, nvmfTgt))
  )

/** With the embedded engine on the other side, in a process of its own. */
export const embeddedNvmeToEmbedded = (name: string, suite: NvmeSuite): void =>
  embedded(`${name} with the embedded target`, (full, layer, capabilities) =>
    suite(full, layer, capabilities, embeddedTgt)
  )

export const libspdkNvmeToEmbedded = (name: string, suite: NvmeSuite): void =>
  libspdk(`${name} with the embedded target`, (full, layer, capabilities) =>
    suite(full, layer, capabilities, embeddedTgt)
  )
