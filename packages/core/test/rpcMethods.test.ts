import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { execFileSync, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { rpcMethods } from "../src/generated/RpcMethods.ts"
import * as Rpc from "../src/Rpc.ts"
import type { BdevRecord } from "../src/RpcResults.ts"
import type { RpcReason, SpdkError } from "../src/SpdkError.ts"

const root = fileURLToPath(new URL("../../../", import.meta.url))
const schemaFile = Path.join(root, "packages/core/schema/spdk-rpc-v26.05.json")

interface SchemaFile {
  readonly methods: ReadonlyArray<{
    readonly name: string
    readonly params: ReadonlyArray<{ readonly name: string; readonly type: string; readonly required?: boolean }>
  }>
}
// The file is this repository's own.
const schemaOf = (text: string) => JSON.parse(text) as SchemaFile

/** A client that answers with `result`, and remembers what it was asked. */
const answering = (result: Schema.Json) => {
  const calls: Array<readonly [string, unknown]> = []
  const client = Rpc.RpcClient.of({
    address: "test",
    call: (method, params) => {
      calls.push([method, params])
      return Effect.succeed(result)
    }
  })
  return { client, calls }
}

const uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

describe("the parameter Schemas", () => {
  const { methods } = schemaOf(Fs.readFileSync(schemaFile, "utf8"))

  it("are there for all 296 methods of the schema, and take its required parameters", () => {
    assert.lengthOf(methods, 296)
    assert.deepStrictEqual(Object.keys(rpcMethods).toSorted(), methods.map(({ name }) => name).toSorted())
    const scalars: Record<string, unknown> = {
      string: "x",
      boolean: true,
      uuid,
      int32: -1,
      uint8: 1,
      uint16: 1,
      uint32: 1,
      uint64: 1
    }
    for (const { name, params } of methods) {
      // Every name is a key of the table: asserted above.
      const is = Schema.is(rpcMethods[name as Rpc.RpcMethod]())
      const required = params.filter((param) => param.required === true)
      if (required.some(({ type }) => !(type in scalars))) continue
      const given = Object.fromEntries(required.map((param) => [param.name, scalars[param.type]]))
      assert.isTrue(is(given), name)
      for (const param of required) assert.isFalse(is({ ...given, [param.name]: undefined }), `${name}.${param.name}`)
      for (const param of params)
        assert.isFalse(is({ ...given, [param.name]: Symbol("none") }), `${name}.${param.name}`)
    }
  })

  it("are what the generator writes today", () => {
    execFileSync(process.execPath, [Path.join(root, "scripts/generate-rpc.mjs"), "--check"])
  })

  it("hold no words of SPDK's documentation", () => {
    assert.notInclude(Fs.readFileSync(schemaFile, "utf8"), "description")
  })
})

describe("generate-rpc.mjs --check", () => {
  it("exits 1 and names the file when one is stale, missing or left over", () => {
    const copy = Fs.mkdtempSync(Path.join(Fs.realpathSync("/tmp"), "generate-rpc-"))
    try {
      for (const path of ["scripts/generate-rpc.mjs", "packages/core/schema", "packages/core/src/generated"]) {
        Fs.cpSync(Path.join(root, path), Path.join(copy, path), { recursive: true })
      }
      const script = Path.join(copy, "scripts/generate-rpc.mjs")
      const generated = Path.join(copy, "packages/core/src/generated")
      const check = () => spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" })
      assert.strictEqual(check().status, 0)

      Fs.appendFileSync(Path.join(generated, "RpcNbd.ts"), "// edited\n")
      Fs.rmSync(Path.join(generated, "RpcVmd.ts"))
      Fs.writeFileSync(Path.join(generated, "RpcOld.ts"), "export {}\n")
      const stale = check()
      assert.strictEqual(stale.status, 1)
      for (const name of ["RpcNbd.ts", "RpcVmd.ts", "RpcOld.ts"]) assert.include(stale.stderr, name)

      assert.strictEqual(spawnSync(process.execPath, [script]).status, 0)
      assert.strictEqual(check().status, 0)
      assert.isFalse(Fs.existsSync(Path.join(generated, "RpcOld.ts")))
    } finally {
      Fs.rmSync(copy, { recursive: true })
    }
  })
})

describe("Rpc.call", () => {
  const malloc = { name: "m", num_blocks: 16, block_size: 512 }

  it.effect("sends what fits and decodes what comes", () =>
    Effect.gen(function* () {
      const { calls, client } = answering("m")
      const created = Rpc.call("bdev_malloc_create", malloc)
      expectTypeOf<Effect.Success<typeof created>>().toEqualTypeOf<string>()
      expectTypeOf<Effect.Error<typeof created>>().toEqualTypeOf<SpdkError<RpcReason>>()
      assert.strictEqual(yield* Effect.provide(created, Layer.succeed(Rpc.RpcClient, client)), "m")
      assert.deepStrictEqual(calls, [["bdev_malloc_create", malloc]])
    })
  )

  const refusals: ReadonlyArray<
    readonly [name: string, method: Rpc.RpcMethod, params: unknown, field: string, rule: string]
  > = [
    ["a missing one", "bdev_malloc_create", { num_blocks: 1 }, "block_size", "Missing"],
    ["a negative size", "bdev_malloc_create", { ...malloc, num_blocks: -1 }, "num_blocks", "uint64"],
    ["a fraction", "bdev_malloc_create", { ...malloc, block_size: 0.5 }, "block_size", "uint32"],
    ["a uint32 of 33 bits", "bdev_malloc_create", { ...malloc, block_size: 2 ** 32 }, "block_size", "uint32"],
    ["a number above 2^53", "bdev_malloc_create", { ...malloc, num_blocks: 2 ** 53 }, "num_blocks", "uint64"],
    ["a bigint above 2^64", "bdev_malloc_create", { ...malloc, num_blocks: 2n ** 64n }, "num_blocks", "uint64"],
    ["a UUID that is none", "bdev_malloc_create", { ...malloc, uuid: "x" }, "uuid", "UUID"],
    ["an unknown one", "bdev_malloc_create", { ...malloc, blocksize: 1 }, "blocksize", "nothing of that name"],
    ["a value that is not in the enum", "log_set_level", { level: "LOUD" }, "level", "ERROR"],
    [
      "a missing one inside an object",
      "nvmf_subsystem_add_listener",
      { nqn: "n", listen_address: { trtype: "TCP" } },
      "listen_address.traddr",
      "Missing"
    ],
    ["a bad item of an array", "bdev_get_iostat", { names: ["a", 1] }, "names[1]", "string"],
    [
      "an array that is too long",
      "bdev_raid_create",
      { name: "r", raid_level: "0", base_bdevs: Array.from({ length: 256 }, () => "b") },
      "base_bdevs",
      "255"
    ],
    ["one of a method without any", "spdk_get_version", { x: 1 }, "x", "is refused"]
  ]
  it.effect.each(refusals)("refuses %s by name, before anything is sent", ([, method, params, field, rule]) =>
    Effect.gen(function* () {
      const { calls, client } = answering("m")
      // What TypeScript refuses, too, where it sees it.
      const { reason } = yield* Effect.flip(Rpc.callWith(client, method, params as never))
      assert.strictEqual(reason._tag, "InvalidArgument")
      if (reason._tag !== "InvalidArgument") return
      assert.strictEqual(reason.field, field)
      assert.include(reason.message, rule)
      assert.lengthOf(calls, 0)
    })
  )

  it("types the parameters by the method's name", () => {
    expectTypeOf<Rpc.RpcMethods["bdev_malloc_create"]["num_blocks"]>().toEqualTypeOf<number | bigint>()
    expectTypeOf<Rpc.RpcMethods["bdev_malloc_create"]["name"]>().toEqualTypeOf<string | undefined>()
    expectTypeOf<{ num_blocks: 1 }>().not.toExtend<Rpc.RpcMethods["bdev_malloc_create"]>()
    expectTypeOf<"LOUD">().not.toExtend<Rpc.RpcMethods["log_set_level"]["level"]>()
    expectTypeOf<"INFO">().toExtend<Rpc.RpcMethods["log_set_level"]["level"]>()
    expectTypeOf<[]>().not.toExtend<Rpc.RpcArguments<"bdev_malloc_create">>()
    expectTypeOf<[]>().toExtend<Rpc.RpcArguments<"bdev_get_bdevs">>()
    expectTypeOf<[{ x: 1 }]>().not.toExtend<Rpc.RpcArguments<"spdk_get_version">>()
    expectTypeOf<"no_such_method">().not.toExtend<Rpc.RpcMethod>()
  })

  it.effect("takes every enum value, bigint and nested object that SPDK takes", () =>
    Effect.gen(function* () {
      const { calls, client } = answering(true)
      yield* Rpc.callWith(client, "log_set_level", { level: "ERROR" })
      yield* Rpc.callWith(client, "bdev_raid_create", { name: "r", raid_level: "5f", base_bdevs: ["a", "b"], uuid })
      yield* Rpc.callWith(client, "nvmf_subsystem_add_ns", { nqn: "n", namespace: { bdev_name: "b", nsid: 1 } })
      yield* Rpc.callWith(client, "bdev_null_resize", { name: "n", new_size: 2 ** 32 - 1 }, { timeout: "1 second" })
      assert.lengthOf(calls, 4)
      const named = answering("m")
      yield* Rpc.callWith(named.client, "bdev_malloc_create", {
        num_blocks: 2n ** 64n - 1n,
        block_size: 512,
        name: undefined
      })
      assert.lengthOf(named.calls, 1)
    })
  )

  it.effect("takes no parameters where none is required", () =>
    Effect.gen(function* () {
      const { calls, client } = answering([])
      yield* Rpc.callWith(client, "bdev_get_bdevs")
      yield* Rpc.callWith(client, "bdev_get_bdevs", undefined, { timeout: "1 second" })
      yield* Rpc.callWith(client, "bdev_get_bdevs", { name: "x" })
      assert.lengthOf(calls, 3)
    })
  )

  it.effect("fails with RpcProtocol, which names the place, when the answer is not SPDK's", () =>
    Effect.gen(function* () {
      const { reason } = yield* Effect.flip(Rpc.callWith(answering([{ name: "x" }]).client, "bdev_get_bdevs"))
      assert.strictEqual(reason._tag, "RpcProtocol")
      assert.include(reason.message, "result[0].aliases")
      assert.strictEqual(
        (yield* Effect.flip(Rpc.callWith(answering(1).client, "bdev_malloc_delete", { name: "x" }))).reason._tag,
        "RpcProtocol"
      )
    })
  )

  it.effect("gives JSON where there is no Schema, and says so in the type", () =>
    Effect.gen(function* () {
      const answer = Rpc.callWith(answering({ any: ["thing"] }).client, "framework_get_subsystems")
      expectTypeOf<Effect.Success<typeof answer>>().toEqualTypeOf<Schema.Json>()
      assert.deepStrictEqual(yield* answer, { any: ["thing"] })
      const bdevs = Rpc.callWith(answering([]).client, "bdev_get_bdevs")
      expectTypeOf<Effect.Success<typeof bdevs>>().toEqualTypeOf<ReadonlyArray<BdevRecord>>()
      assert.deepStrictEqual(yield* bdevs, [])
    })
  )
})
