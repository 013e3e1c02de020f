/** SPDK waits for its configuration and its sockets by the machine's time. `it.effect` replaces Effect's Clock. */
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { libspdk } from "./support/engines.ts"

const create = { method: "bdev_malloc_create", params: { name: "configured", num_blocks: 64, block_size: 512 } }

libspdk(
  "test clock",
  (name, layer) =>
    describe(name, () => {
      it.effect("SPDK starts with a configuration under a TestClock that nobody moves", () =>
        Effect.gen(function* () {
          assert.strictEqual((yield* Bdev.find("configured")).numBlocks, 64)
        }).pipe(Effect.provide(layer))
      )
    }),
  { config: { subsystems: [{ subsystem: "bdev", config: [create] }] } }
)
