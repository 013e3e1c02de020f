import { describe, it } from "@effect/vitest"
import { suite } from "./suites/nvmfConfig.ts"
import { embedded } from "./support/engines.ts"
import { nvmfTgtMissing } from "./support/spdkTarget.ts"

if (nvmfTgtMissing === undefined) embedded("nvmf configuration", suite)
else {
  describe(`embedded nvmf configuration [skipped: ${nvmfTgtMissing}]`, () => {
    it.skip(`skipped: ${nvmfTgtMissing}`, () => {})
  })
}
