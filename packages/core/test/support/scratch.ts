import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

/** A folder of the test's own, which goes with the scope and all that is in it. */
export const scratchFolder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "effect-spdk-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true }))
)
