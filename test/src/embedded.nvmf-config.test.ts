import { suite } from "./suites/nvmfConfig.ts"
import { embedded } from "./support/engines.ts"
import { nvmfTgtTool } from "./support/nvmfTarget.ts"
import { withTool } from "./support/spdkTools.ts"

withTool(nvmfTgtTool, "embedded nvmf configuration", () => embedded("nvmf configuration", suite))
