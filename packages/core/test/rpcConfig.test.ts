import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Schema from "effect/Schema"
import { applyConfig } from "../src/internal/rpc/config.ts"
import { RpcClient } from "../src/Rpc.ts"
import { fromRpcCode, type Reason, type RpcReason, RpcUnreachable, SpdkError } from "../src/SpdkError.ts"

interface Bdev {
  readonly name: string
  readonly product_name: string
  readonly driver_specific?: Schema.Json
}

const refuse = (method: string, code: number, message: string) => Effect.fail(fromRpcCode(method, code, message))

/** An SPDK of a few methods, with SPDK's two states. */
const fakeSpdk = (options: { readonly startup?: boolean; readonly bdevs?: ReadonlyArray<Bdev> } = {}) => {
  let isStartup = options.startup ?? false
  const bdevs: Array<Bdev> = [...(options.bdevs ?? [])]
  const calls: Array<string> = []
  const startupOnly = ["iobuf_set_options", "framework_start_init"]
  const both = ["bdev_set_options", "rpc_get_methods"]
  const runtimeOnly = [
    "bdev_get_bdevs",
    "bdev_malloc_create",
    "bdev_malloc_delete",
    "bdev_passthru_create",
    "bdev_passthru_delete",
    "bdev_split_create",
    "bdev_split_delete",
    "bdev_lvol_delete",
    "hang",
    "lose"
  ]
  const current = () => [...both, ...(isStartup ? startupOnly : runtimeOnly)]

  const create = (method: string, bdev: Bdev) => {
    if (bdevs.some(({ name }) => name === bdev.name)) return refuse(method, -17, "File exists")
    bdevs.push(bdev)
    return Effect.succeed(bdev.name)
  }

  const answer = (
    method: string,
    params: Record<string, unknown>
  ): Effect.Effect<Schema.Json, SpdkError<RpcReason>> => {
    const name = `${params["name"]}`
    switch (method) {
      case "rpc_get_methods":
        return Effect.succeed(params["current"] === true ? current() : [...both, ...startupOnly, ...runtimeOnly])
      case "framework_start_init":
        isStartup = false
        return Effect.succeed(true)
      case "bdev_get_bdevs":
        return Effect.succeed(bdevs.map((bdev) => ({ driver_specific: {}, ...bdev })))
      case "bdev_malloc_create":
        return create(method, { name, product_name: "Malloc disk" })
      case "bdev_passthru_create":
        return create(method, { name, product_name: "passthru" })
      case "bdev_split_create": {
        const base = `${params["base_bdev"]}`
        for (const part of [0, 1]) {
          bdevs.push({
            name: `${base}p${part}`,
            product_name: "Split Disk",
            driver_specific: { split: { base_bdev: base } }
          })
        }
        return Effect.succeed([])
      }
      case "bdev_malloc_delete":
      case "bdev_passthru_delete":
      case "bdev_lvol_delete": {
        const at = bdevs.findIndex((bdev) => bdev.name === name)
        if (at === -1) return refuse(method, -19, "No such device")
        bdevs.splice(at, 1)
        return Effect.succeed(true)
      }
      case "bdev_split_delete":
        bdevs.splice(0, bdevs.length, ...bdevs.filter((bdev) => bdev.product_name !== "Split Disk"))
        return Effect.succeed(true)
      case "hang":
        return Effect.never
      case "lose":
        return Effect.fail(new SpdkError({ reason: new RpcUnreachable({ operation: method, address: "test" }) }))
      default:
        return Effect.succeed(true)
    }
  }

  const client = RpcClient.of({
    address: "test",
    call: (method, params) =>
      Effect.suspend(() => {
        if (method !== "rpc_get_methods" && method !== "bdev_get_bdevs") calls.push(method)
        if (!current().includes(method)) {
          const known = [...startupOnly, ...runtimeOnly].includes(method)
          return known ? refuse(method, -1, "wrong state") : refuse(method, -32_601, "Method not found")
        }
        return answer(method, { ...params })
      })
  })
  return { client, calls, names: () => bdevs.map(({ name }) => name), isStartup: () => isStartup }
}

const malloc = (name: string) => ({ method: "bdev_malloc_create", params: { name, num_blocks: 8, block_size: 512 } })
const passthru = (name: string) => ({ method: "bdev_passthru_create", params: { name, base_bdev_name: "x" } })
const bdevConfig = (...config: ReadonlyArray<unknown>) => ({ subsystems: [{ subsystem: "bdev", config }] })

const rejected = (
  reason: Reason,
  expected: { readonly method: string; readonly index: number; readonly code: number }
) => {
  assert.strictEqual(reason._tag, "ConfigRejected")
  if (reason._tag !== "ConfigRejected") return
  assert.deepStrictEqual({ method: reason.method, index: reason.index, code: reason.code }, expected)
}

describe("applyConfig", () => {
  it.effect("calls the subsystems' methods in order on an SPDK that runs", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      yield* applyConfig(spdk.client, {
        subsystems: [
          { subsystem: "accel", config: null },
          { subsystem: "sock" },
          {
            subsystem: "bdev",
            config: [{ method: "bdev_set_options", params: {} }, malloc("a"), [malloc("b"), passthru("c")]]
          }
        ]
      })
      assert.deepStrictEqual(spdk.calls, [
        "bdev_set_options",
        "bdev_malloc_create",
        "bdev_malloc_create",
        "bdev_passthru_create"
      ])
      assert.deepStrictEqual(spdk.names(), ["a", "b", "c"])
    })
  )

  it.effect("calls what belongs before the start, starts, and calls the rest", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk({ startup: true })
      yield* applyConfig(
        spdk.client,
        bdevConfig(malloc("a"), { method: "bdev_set_options" }, { method: "iobuf_set_options", params: { small: 1 } })
      )
      assert.deepStrictEqual(spdk.calls, [
        "bdev_set_options",
        "iobuf_set_options",
        "framework_start_init",
        "bdev_malloc_create"
      ])
      assert.isFalse(spdk.isStartup())
    })
  )

  it.effect("starts an SPDK that waits for it although there is nothing to configure", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk({ startup: true })
      yield* applyConfig(spdk.client, { subsystems: [] })
      assert.deepStrictEqual(spdk.calls, ["framework_start_init"])
    })
  )

  it.effect("starts once when the configuration says it, too", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk({ startup: true })
      yield* applyConfig(spdk.client, bdevConfig({ method: "framework_start_init" }, malloc("a")))
      assert.deepStrictEqual(spdk.calls, ["framework_start_init", "bdev_malloc_create"])
    })
  )

  const malformed: ReadonlyArray<readonly [config: unknown, field: string]> = [
    [null, "config"],
    ["{}", "config"],
    [{}, "config.subsystems"],
    [{ subsystems: {} }, "config.subsystems"],
    [{ subsystems: [{ config: [] }] }, "config.subsystems[0].subsystem"],
    [{ subsystems: [{ subsystem: "bdev", config: {} }] }, "config.subsystems[0].config"],
    [bdevConfig(malloc("a"), { params: {} }), "config.subsystems[0].config[1].method"],
    [bdevConfig({ method: 1 }), "config.subsystems[0].config[0].method"],
    [bdevConfig({ method: "" }), "config.subsystems[0].config[0].method"],
    [bdevConfig({ method: "m", params: [] }), "config.subsystems[0].config[0].params"],
    [bdevConfig({ method: "m", params: { x: undefined } }), "config.subsystems[0].config[0].params.x"],
    [bdevConfig([malloc("a"), { no: 1 }]), "config.subsystems[0].config[0][1].method"]
  ]
  it.effect.each(malformed)("refuses %j before it calls anything, and names the place", ([config, field]) =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      const { reason } = yield* Effect.flip(applyConfig(spdk.client, config))
      assert.strictEqual(reason._tag, "InvalidArgument")
      assert.strictEqual(reason._tag === "InvalidArgument" ? reason.field : "", field)
      assert.deepStrictEqual(spdk.calls, [])
    })
  )

  it.effect("calls nothing when a method is unknown", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      const error = yield* Effect.flip(
        applyConfig(spdk.client, bdevConfig(malloc("a"), [malloc("b"), { method: "bdev_nope" }]))
      )
      rejected(error.reason, { method: "bdev_nope", index: 2, code: -32_601 })
      assert.deepStrictEqual(spdk.calls, [])
    })
  )

  it.effect("calls nothing when a method belongs before a start that has happened", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      const error = yield* Effect.flip(
        applyConfig(spdk.client, bdevConfig(malloc("a"), { method: "iobuf_set_options" }))
      )
      rejected(error.reason, { method: "iobuf_set_options", index: 1, code: -1 })
      assert.deepStrictEqual(spdk.calls, [])
    })
  )

  it.effect("takes back what it made when SPDK refuses, the youngest first, and leaves what was there", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk({ bdevs: [{ name: "old", product_name: "Malloc disk" }] })
      const error = yield* Effect.flip(
        applyConfig(
          spdk.client,
          bdevConfig(
            malloc("a"),
            passthru("b"),
            { method: "bdev_split_create", params: { base_bdev: "a", split_count: 2 } },
            malloc("old"),
            malloc("z")
          )
        )
      )
      rejected(error.reason, { method: "bdev_malloc_create", index: 3, code: -17 })
      assert.include(error.message, "SPDK refused call 3 of the configuration, bdev_malloc_create, with code -17")
      assert.include(error.message, "AlreadyExists: File exists (EEXIST)")
      assert.instanceOf(error.cause, SpdkError)
      assert.deepStrictEqual(spdk.names(), ["old"])
      assert.deepStrictEqual(spdk.calls.slice(4), ["bdev_split_delete", "bdev_passthru_delete", "bdev_malloc_delete"])
    })
  )

  it.effect("never deletes a logical volume, whose data would go with it", () =>
    Effect.gen(function* () {
      const lvol = { name: "lvs/lvol", product_name: "Logical Volume" }
      const spdk = fakeSpdk()
      const appears = RpcClient.of({
        ...spdk.client,
        // The volume is found on a bdev of the configuration while that is examined.
        call: (method, params) =>
          Effect.map(spdk.client.call(method, params), (result) =>
            method === "bdev_get_bdevs" && Array.isArray(result) && result.length > 0
              ? [...result, { ...lvol, driver_specific: {} }]
              : result
          )
      })
      yield* Effect.flip(applyConfig(appears, bdevConfig(malloc("a"), malloc("a"))))
      assert.notInclude(spdk.calls, "bdev_lvol_delete")
      assert.deepStrictEqual(spdk.names(), [])
    })
  )

  it.effect("fails as the call does when nobody refused it, and takes back as well", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      const { reason } = yield* Effect.flip(applyConfig(spdk.client, bdevConfig(malloc("a"), { method: "lose" })))
      assert.strictEqual(reason._tag, "RpcUnreachable")
      assert.deepStrictEqual(spdk.names(), [])
    })
  )

  it.effect("takes back what it made when it is interrupted", () =>
    Effect.gen(function* () {
      const spdk = fakeSpdk()
      const fiber = yield* Effect.forkChild(applyConfig(spdk.client, bdevConfig(malloc("a"), { method: "hang" })), {
        startImmediately: true
      })
      assert.deepStrictEqual(spdk.names(), ["a"])
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(spdk.names(), [])
    })
  )
})
