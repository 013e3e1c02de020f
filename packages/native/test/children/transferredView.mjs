/** Gives memory back whose view it has transferred, and looks for what others write there. Plain JavaScript: Node 20 runs no TypeScript. */
import * as Host from "@effect-spdk/native/Host"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startOptions } from "./startOptions.mjs"

const result = Host.get()
if (result._tag === "Missing") throw new Error(result.reason)
const { host } = result
const { addon } = host
const options = startOptions("transferred", mkdtempSync(join(tmpdir(), "espdk-view-")), `[${addon.cores().at(-1)}]`)
await new Promise((resolve) => host.start(options, resolve))

const attempt = (call) => {
  try {
    call()
    return "done"
  } catch (error) {
    return error.message
  }
}

const lengthBytes = 65536
const transferred = () => {
  const slab = addon.dmaAllocateNow(lengthBytes, 4096)
  const view = addon.dmaView(...slab)
  return { slab, view, moved: new Uint8Array(view.transfer()) }
}
const leased = transferred()
const renewed = attempt(() => addon.dmaRenew(...leased.slab, leased.view))
const { moved, slab, view } = transferred()
const freed = attempt(() => addon.dmaFree(...slab, view))
const next = addon.dmaAllocateNow(lengthBytes, 4096)
const nextView = addon.dmaView(...next)
new Uint8Array(nextView).fill(0xaa)
const reached = moved.filter((byte) => byte !== 0).length
const { slabs } = addon.usage()
// A slab that is gone is no slab to ask about.
addon.dmaFree(...next, nextView)
const freedTwice = attempt(() => addon.dmaFree(...next, nextView))
process.stdout.write(JSON.stringify({ renewed, freed, reached, slabs, freedTwice }), () => process.exit(0))
