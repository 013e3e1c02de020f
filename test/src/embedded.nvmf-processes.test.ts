import { suite } from "./suites/nvmfProcesses.ts"
import { embedded } from "./support/engines.ts"
import { nvmfTgtTool } from "./support/nvmfTarget.ts"
import { withTool } from "./support/spdkTools.ts"

withTool(nvmfTgtTool, "embedded nvmf processes", () => embedded("nvmf processes", suite))
