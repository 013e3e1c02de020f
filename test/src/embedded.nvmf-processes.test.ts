import { describe, it } from "@effect/vitest"
import { suite } from "./suites/nvmfProcesses.ts"
import { embedded } from "./support/engines.ts"
import { nvmfTgtMissing } from "./support/spdkTarget.ts"

if (nvmfTgtMissing === undefined) embedded("nvmf processes", suite)
else {
  describe(`embedded nvmf processes [skipped: ${nvmfTgtMissing}]`, () => {
    it.skip(`skipped: ${nvmfTgtMissing}`, () => {})
  })
}
