import { describe, it } from "@effect/vitest"
import { suite } from "./suites/nvmfProcesses.ts"
import { libspdk } from "./support/engines.ts"
import { nvmfTgtMissing } from "./support/spdkTarget.ts"

if (nvmfTgtMissing === undefined) libspdk("nvmf processes", suite)
else {
  describe(`libspdk nvmf processes [skipped: ${nvmfTgtMissing}]`, () => {
    it.skip(`skipped: ${nvmfTgtMissing}`, () => {})
  })
}
