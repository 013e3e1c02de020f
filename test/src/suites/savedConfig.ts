/** What one engine has saved starts the other. */
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { run } from "../support/children.ts"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import { scratchFile } from "../support/engines.ts"
import { speaksAsEmbedded } from "../support/spdkVersion.ts"
import { contract } from "../support/harness.ts"
import { furnish } from "../support/furnish.ts"
import { made, saveConfig } from "../support/savedConfig.ts"

export const suite = (name: string, layer: EngineLayer, { engine }: Capabilities): void => {
  const other = engine === "libspdk" ? "embedded" : "libspdk"
  contract(name, layer, (check) => {
    check(`what ${engine} has saved starts ${other}, which has the same then`, () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const path = yield* scratchFile
        // Gone before the other starts: files and ports are one engine's at a time.
        const expected = yield* Effect.scoped(
          Effect.gen(function* () {
            yield* furnish
            writeFileSync(path, JSON.stringify(yield* saveConfig(client)))
            return yield* made(client)
          })
        )
        assert.isAbove(expected.bdevs.length, 8)
        if (other === "libspdk") yield* speaksAsEmbedded
        const { stderr, stdout } = yield* run("startsWith", [other, path])
        const said: unknown = JSON.parse(stdout.trim().split("\n").at(-1) ?? stderr)
        assert.deepStrictEqual(said, { made: expected }, stderr)
      })
    )
  })
}
