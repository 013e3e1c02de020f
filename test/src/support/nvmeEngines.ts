/** Registers the NVMe suites for an engine as host, against each of the targets that there are. */
import { describe, it } from "@effect/vitest"
import { embedded, libspdk } from "./engines.ts"
import type { NvmeSuite } from "./nvmeSuite.ts"
import { nvmfTgt, nvmfTgtMissing } from "./nvmfTarget.ts"

export const embeddedNvme = (name: string, suite: NvmeSuite): void =>
  againstSpdk(`embedded ${name}`, () =>
    embedded(`${name} with nvmf_tgt`, (full, layer, capabilities) => suite(full, layer, capabilities, nvmfTgt))
  )

export const libspdkNvme = (name: string, suite: NvmeSuite): void =>
  againstSpdk(`libspdk ${name}`, () =>
    libspdk(`${name} with nvmf_tgt`, (full, layer, capabilities) => suite(full, layer, capabilities, nvmfTgt))
  )

const againstSpdk = (name: string, register: () => void): void => {
  if (nvmfTgtMissing === undefined) register()
  else describe(`${name} [skipped: ${nvmfTgtMissing}]`, () => it.skip(`skipped: ${nvmfTgtMissing}`, () => {}))
}
