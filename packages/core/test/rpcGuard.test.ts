import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { makeGuard } from "../src/internal/rpc/guard.ts"

/** A server whose targets have these transports; it answers nothing else. */
const serverOf = (transports: { readonly [target: string]: ReadonlyArray<string> }) => {
  const guarded = makeGuard()
  const ask = (method: string, params: { readonly [name: string]: unknown } = {}): Effect.Effect<Schema.Json> => {
    if (method === "nvmf_get_targets") return Effect.succeed(Object.keys(transports))
    const own = transports[String(params["tgt_name"])] ?? []
    return Effect.succeed(own.map((trtype) => ({ trtype })))
  }
  return (method: string, params?: { readonly [name: string]: unknown }) =>
    guarded(method, params, ask, Effect.succeed("sent"))
}

describe("rpcGuard", () => {
  it.effect("statistics of buffers are refused once SPDK has freed those that another target counts", () =>
    Effect.gen(function* () {
      const call = serverOf({ nvmf_tgt: ["TCP"], other: ["TCP"], alone: ["VFIOUSER"], bare: [] })
      for (const name of ["alone", "bare", "missing"]) {
        assert.strictEqual(yield* call("nvmf_delete_target", { name }), "sent")
        assert.strictEqual(yield* call("iobuf_get_stats"), "sent")
      }
      assert.strictEqual(yield* call("nvmf_delete_target", { name: "other" }), "sent")
      const { reason } = yield* Effect.flip(call("iobuf_get_stats"))
      assert.strictEqual(reason._tag, "NotSupported")
      assert.strictEqual(yield* call("thread_get_stats"), "sent")
    })
  )
})
