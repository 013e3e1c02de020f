/** Whether libspdk starts here, and which version it is. */
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import { engineLayer } from "./device.ts"

export const status = Spdk.Spdk.pipe(
  Effect.map((spdk) => ({ description: spdk.version })),
  Effect.provide(engineLayer("libspdk")),
  Effect.catch((error) => Effect.succeed({ description: "missing", missing: error.message }))
)
