import { suite } from "./suites/nvmfProcesses.ts"
import { libspdk } from "./support/engines.ts"
import { nvmfTgtTool } from "./support/nvmfTarget.ts"
import { withTool } from "./support/spdkTools.ts"

withTool(nvmfTgtTool, "libspdk nvmf processes", () => libspdk("nvmf processes", suite))
