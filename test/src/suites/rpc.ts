/** The control plane: SPDK's method names, parameters, results and error codes, on whatever answers them. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import { contract, expectInterrupted, failsWith, fresh, until, within } from "../support/harness.ts"
import { needsResume } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const nullBdev = (client: Rpc.RpcClient["Service"], name: string, numBlocks = 64) =>
  Effect.acquireRelease(client.call("bdev_null_create", { name, num_blocks: numBlocks, block_size: 512 }), () =>
    Effect.ignore(client.call("bdev_null_delete", { name }))
  )

const namesIn = (bdevs: unknown): ReadonlyArray<string> => {
  assert.isTrue(Array.isArray(bdevs), "an array of bdevs")
  // Array.isArray was asserted; the elements are looked at one by one.
  return (bdevs as ReadonlyArray<unknown>).map((bdev) => {
    if (typeof bdev === "object" && bdev !== null && "name" in bdev && typeof bdev.name === "string") return bdev.name
    return assert.fail(`a bdev without a name: ${JSON.stringify(bdev)}`)
  })
}

export const suite = (name: string, layer: EngineLayer, capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("lists its methods, and those of the bdevs that everybody needs are among them", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const methods = yield* client.call("rpc_get_methods")
        assert.isTrue(Array.isArray(methods))
        for (const method of [
          "rpc_get_methods",
          "spdk_get_version",
          "framework_get_reactors",
          "thread_get_stats",
          "bdev_get_bdevs",
          "bdev_get_iostat",
          "bdev_malloc_create",
          "bdev_malloc_delete",
          "bdev_null_create",
          "bdev_null_delete",
          "bdev_aio_create",
          "bdev_aio_delete",
          "bdev_passthru_create",
          "bdev_passthru_delete",
          "bdev_delay_create",
          "bdev_delay_delete",
          "bdev_error_create",
          "bdev_error_delete",
          "bdev_error_inject_error",
          "bdev_split_create",
          "bdev_split_delete"
        ])
          assert.include(methods, method)
      })
    )

    check("creates a bdev, lists it by name, deletes it", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        assert.strictEqual(
          yield* client.call("bdev_null_create", { name: bdev, num_blocks: 64, block_size: 512 }),
          bdev
        )
        assert.include(namesIn(yield* client.call("bdev_get_bdevs")), bdev)
        assert.deepStrictEqual(namesIn(yield* client.call("bdev_get_bdevs", { name: bdev })), [bdev])
        assert.strictEqual(yield* client.call("bdev_null_delete", { name: bdev }), true)
        assert.notInclude(namesIn(yield* client.call("bdev_get_bdevs")), bdev)
      })
    )

    check("types the errors by code", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        yield* nullBdev(client, bdev)
        const missing = fresh("missing")
        yield* failsWith(client.call("bdev_get_bdevs", { name: missing }), "NotFound", {
          errno: "ENODEV",
          errnoCode: 19
        })
        yield* failsWith(client.call("bdev_null_delete", { name: missing }), "NotFound", { errnoCode: 19 })
        yield* failsWith(
          client.call("bdev_null_create", { name: bdev, num_blocks: 64, block_size: 512 }),
          "AlreadyExists",
          {
            errno: "EEXIST",
            errnoCode: 17
          }
        )
        yield* failsWith(client.call("no_such_method"), "MethodNotFound", { method: "no_such_method" })
        yield* failsWith(client.call(""), "MethodNotFound", { method: "" })
        yield* failsWith(client.call("__proto__"), "MethodNotFound", { method: "__proto__" })
        yield* failsWith(client.call("toString"), "MethodNotFound", { method: "toString" })
      })
    )

    check("refuses parameters as SPDK does when they are not checked first", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const refused = (method: string, params: Rpc.RpcParams) =>
          failsWith(client.call(method, params), "InvalidArgument")
        yield* refused("bdev_null_create", undefined)
        yield* refused("bdev_null_create", { name: fresh("null") })
        yield* refused("bdev_null_create", { name: 7, num_blocks: 64, block_size: 512 })
        yield* refused("bdev_null_create", { name: fresh("null"), num_blocks: "many", block_size: 512 })
        yield* refused("bdev_null_create", { name: fresh("null"), num_blocks: -1, block_size: 512 })
        yield* refused("bdev_null_create", { name: fresh("null"), num_blocks: 64, block_size: 512, nonsense: 1 })
        yield* refused("bdev_null_create", { name: fresh("null"), num_blocks: 0, block_size: 512 })
        yield* refused("bdev_null_create", { name: fresh("null"), num_blocks: 64, block_size: 100 })
        yield* refused("bdev_malloc_create", { name: fresh("malloc"), num_blocks: 0, block_size: 512 })
        // SPDK multiplies first, and then finds nothing to allocate.
        yield* failsWith(
          client.call("bdev_malloc_create", { name: fresh("malloc"), num_blocks: 64, block_size: 0 }),
          "NoMemory"
        )
        yield* refused("bdev_get_bdevs", { name: ["a"] })
        assert.deepStrictEqual(namesIn(yield* client.call("bdev_get_bdevs")), [])
      })
    )

    check("checks typed parameters before it sends them, and names the one that is wrong", () =>
      Effect.gen(function* () {
        const reason = yield* failsWith(
          // The wrong type is what this test is about.
          Rpc.call("bdev_null_create", { name: "n", num_blocks: "many" as unknown as number, block_size: 512 }),
          "InvalidArgument"
        )
        assert.match(reason.field, /num_blocks/)
        const missing = yield* failsWith(
          // As above: a required parameter is left out.
          Rpc.call("bdev_null_create", { name: "n", block_size: 512 } as unknown as Rpc.RpcMethods["bdev_null_create"]),
          "InvalidArgument"
        )
        assert.match(missing.field, /num_blocks/)
      })
    )

    check("decodes the results it knows", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        yield* nullBdev(client, bdev, 128)
        const [info] = yield* Rpc.call("bdev_get_bdevs", { name: bdev })
        assert.strictEqual(info?.name, bdev)
        assert.strictEqual(info?.num_blocks, 128)
        assert.strictEqual(info?.block_size, 512)
        assert.strictEqual(info?.product_name, "Null disk")
      })
    )

    check("has 1,000 calls in flight and gives each its own answer", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const client = yield* Rpc.RpcClient
          const names = Array.from({ length: 20 }, () => fresh("null"))
          for (const bdev of names) yield* nullBdev(client, bdev)
          yield* Effect.forEach(
            Array.from({ length: 1000 }),
            () => {
              const bdev = random.pick(names)
              return random.chance(0.2)
                ? failsWith(client.call(`no_${bdev}`), "MethodNotFound", { method: `no_${bdev}` })
                : Effect.map(client.call("bdev_get_bdevs", { name: bdev }), (found) =>
                    assert.deepStrictEqual(namesIn(found), [bdev])
                  )
            },
            { concurrency: "unbounded", discard: true }
          )
        })
      )
    )

    check("gives up at the deadline, says the limit, and goes on with other calls", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const missing = fresh("late")
        // SPDK itself waits for the bdev to appear, for much longer.
        yield* failsWith(
          within(
            "the deadline",
            client.call("bdev_get_bdevs", { name: missing, timeout: 60_000 }, { timeout: "50 millis" })
          ),
          "TimedOut",
          { limitMillis: 50 }
        )
        // Now it answers the call that was given up, while others wait for answers with ids of their own.
        yield* nullBdev(client, missing)
        assert.deepStrictEqual(namesIn(yield* client.call("bdev_get_bdevs", { name: missing })), [missing])
        yield* failsWith(client.call("bdev_get_bdevs", { name: fresh("late"), timeout: 500 }), "TimedOut", {
          errno: "ETIMEDOUT",
          errnoCode: 110
        })
      })
    )

    check("waits for a bdev to appear as SPDK does", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        const waiting = yield* Effect.forkChild(client.call("bdev_get_bdevs", { name: bdev, timeout: 20_000 }), {
          startImmediately: true
        })
        yield* nullBdev(client, bdev)
        assert.deepStrictEqual(namesIn(yield* within("the bdev", Fiber.join(waiting))), [bdev])
      })
    )

    check("forgets an interrupted call and drops its late answer", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        const waiting = yield* Effect.forkChild(client.call("bdev_get_bdevs", { name: bdev, timeout: 20_000 }), {
          startImmediately: true
        })
        yield* Effect.forEach(Array.from({ length: 3 }), () => client.call("spdk_get_version"), { discard: true })
        yield* within("the interruption", Fiber.interrupt(waiting))
        expectInterrupted(yield* Fiber.await(waiting))
        yield* nullBdev(client, bdev)
        yield* until(
          "the bdev is listed",
          Effect.map(client.call("bdev_get_bdevs"), (found) => namesIn(found).includes(bdev))
        )
      })
    )

    check("refuses what would end the connection, and the calls of others go on", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        const waiting = yield* Effect.forkChild(client.call("bdev_get_bdevs", { name: bdev, timeout: 20_000 }), {
          startImmediately: true
        })
        const lone = "x\ud800"
        const refused = (params: Rpc.RpcParams, field: string) =>
          failsWith(client.call("bdev_null_create", params), "InvalidArgument", { field })
        yield* refused({ name: lone, num_blocks: 64, block_size: 512 }, "name")
        yield* refused({ name: "n", [lone]: 1 }, "")
        yield* failsWith(client.call(lone), "InvalidArgument", { field: "method" })
        const long = "x".repeat(400_000)
        const large = yield* refused({ name: long, num_blocks: 64, block_size: 512 }, "params")
        assert.match(large.rule, /at most \d+$/)
        const { message } = yield* failsWith(
          client.call("bdev_get_bdevs", { names: Array.from({ length: 9000 }, () => 1) }),
          "InvalidArgument"
        )
        assert.match(message, /values/)
        yield* nullBdev(client, bdev)
        assert.deepStrictEqual(namesIn(yield* within("the bdev", Fiber.join(waiting))), [bdev])
      })
    )

    check("refuses what SPDK would not survive", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        yield* nullBdev(client, bdev)
        const split = (more: object) => client.call("bdev_split_create", { base_bdev: bdev, split_count: 1, ...more })
        yield* failsWith(split({ split_count: 65 }), "InvalidArgument", { field: "split_count" })
        yield* failsWith(split({ split_size_mb: 2 ** 44 }), "InvalidArgument", { field: "split_size_mb" })
        yield* failsWith(split({ split_size_mb: 2 ** 33 }), "InvalidArgument", { field: "split_size_mb" })
        yield* nullBdev(client, `${bdev}p1`)
        yield* failsWith(split({ split_count: 2 }), "AlreadyExists", { resource: `${bdev}p1` })
        yield* failsWith(
          client.call("bdev_null_create", { name: fresh("null"), num_blocks: 64, block_size: 0 }),
          "InvalidArgument",
          { field: "block_size" }
        )
        const zoned = { name: bdev, base_bdev: bdev, zone_capacity: 8, optimal_open_zones: 1 }
        yield* failsWith(client.call("bdev_zone_block_create", zoned), "AlreadyExists", { resource: bdev })
        const onto = { name: bdev, base_bdev_name: bdev }
        yield* failsWith(client.call("bdev_passthru_create", onto), "AlreadyExists", { resource: bdev })
        for (const call of [
          client.call("bdev_passthru_create", { ...onto, name: "" }),
          client.call("bdev_zone_block_create", { ...zoned, name: "" })
        ]) {
          yield* failsWith(call, "InvalidArgument", { field: "name" })
        }
        const large = yield* Bdev.createNull({ blockSize: 8192, size: "1 MiB" })
        const refused = (method: string, field: string, params: Rpc.RpcParams) =>
          failsWith(client.call(method, params), "InvalidArgument", { field })
        const malloc = { num_blocks: 64, optimal_io_boundary: 8 }
        yield* refused("bdev_malloc_create", "optimal_io_boundary", { ...malloc, block_size: 8192 })
        const interleaved = { block_size: 4096, md_size: 64, md_interleave: true }
        yield* refused("bdev_malloc_create", "optimal_io_boundary", { ...malloc, ...interleaved })
        yield* refused("bdev_lvol_create_lvstore", "bdev_name", { bdev_name: large, lvs_name: fresh("store") })
        yield* refused("bdev_enable_histogram", "opc", { name: bdev, enable: true, opc: "none" })
        yield* refused("bdev_enable_histogram", "granularity", { name: bdev, enable: true, granularity: 17 })
        const raid = { name: fresh("raid"), base_bdevs: [bdev, large], strip_size_kb: 64 }
        for (const raid_level of ["raid0", "concat", "raid5f"]) {
          yield* refused("bdev_raid_create", "base_bdevs", { ...raid, raid_level })
        }
        const [{ uuid } = {}] = yield* Rpc.call("bdev_get_bdevs", { name: bdev })
        const sameUuid = { name: fresh("passthru"), base_bdev_name: bdev, uuid }
        yield* failsWith(client.call("bdev_passthru_create", sameUuid), "AlreadyExists", { resource: bdev })
      })
    )

    if (capabilities.engine === "libspdk") {
      check("finds the errno of stores of logical volumes", () =>
        Effect.gen(function* () {
          const client = yield* Rpc.RpcClient
          const base = yield* Bdev.createMalloc({ blockSize: 512, size: "8 MiB" })
          const store = fresh("store")
          const make = client.call("bdev_lvol_create_lvstore", { bdev_name: base, lvs_name: store, cluster_sz: 65_536 })
          yield* failsWith(
            client.call("bdev_lvol_create_lvstore", { bdev_name: fresh("missing"), lvs_name: store }),
            "NotFound",
            { errno: "ENODEV" }
          )
          yield* Effect.acquireRelease(make, () =>
            Effect.orDie(client.call("bdev_lvol_delete_lvstore", { lvs_name: store }))
          )
          const volume = (lvol_name: string, size_in_mib: number) =>
            client.call("bdev_lvol_create", { lvs_name: store, lvol_name, size_in_mib })
          yield* failsWith(volume("large", 100), "NoSpace", { errno: "ENOSPC" })
          yield* volume("v", 1)
          yield* failsWith(volume("v", 1), "AlreadyExists", { errno: "EEXIST" })
          yield* failsWith(client.call("bdev_lvol_resize", { name: `${store}/v`, size_in_mib: 100 }), "NoSpace")
          yield* failsWith(client.call("bdev_lvol_delete", { name: `${store}/w` }), "NotFound")
          yield* failsWith(
            client.call("bdev_lvol_create_lvstore", { bdev_name: base, lvs_name: fresh("store") }),
            "Busy"
          )
        })
      )

      // SPDK writes the store first and claims then. It keeps the bdev open for good when the claim fails.
      check("no store of logical volumes is written to a bdev that is open for writing", () =>
        Effect.gen(function* () {
          const client = yield* Rpc.RpcClient
          const disk = fresh("disk")
          yield* client.call("bdev_malloc_create", { name: disk, block_size: 512, num_blocks: 16_384 })
          const params = { bdev_name: disk, lvs_name: fresh("store"), cluster_sz: 65_536 }
          const make = client.call("bdev_lvol_create_lvstore", params)
          const data = new Uint8Array(65_536).fill(7)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const bdev = yield* Bdev.open(disk, { write: true })
              yield* bdev.writeBytes(0, data)
              yield* failsWith(make, "Busy", { resource: disk, detail: "open for writing" })
              assert.deepStrictEqual(yield* bdev.readBytes(0, data.length), data)
            })
          )
          // Who only reads is no obstacle, and what was refused has left nothing behind.
          yield* Effect.scoped(Effect.andThen(Bdev.open(disk), make))
          yield* client.call("bdev_lvol_delete_lvstore", { lvs_name: params.lvs_name })
          yield* client.call("bdev_malloc_delete", { name: disk })
        })
      )

      // SPDK asks for the end of the volume again and again, until its stack is full.
      check("a store of logical volumes stays while one of them is on its way out", () =>
        Effect.gen(function* () {
          yield* needsResume
          const client = yield* Rpc.RpcClient
          const base = yield* Bdev.createMalloc({ blockSize: 512, size: "8 MiB" })
          const held = yield* Bdev.createError({ base })
          const store = fresh("store")
          yield* client.call("bdev_lvol_create_lvstore", { bdev_name: held.name, lvs_name: store, cluster_sz: 65_536 })
          yield* client.call("bdev_lvol_create", { lvs_name: store, lvol_name: "v", size_in_mib: 1 })
          const deletion = yield* Effect.scoped(
            Effect.gen(function* () {
              const volume = yield* Bdev.open(`${store}/v`)
              yield* held.inject({ ioType: "read", errorType: "pending" })
              const reading = yield* Effect.forkChild(Effect.exit(volume.readBytes(0, 512)), { startImmediately: true })
              const deleting = yield* Effect.forkChild(client.call("bdev_lvol_delete", { name: `${store}/v` }), {
                startImmediately: true
              })
              yield* until(
                "the volume is going",
                Effect.sync(() => volume.isRemoved)
              )
              yield* failsWith(client.call("bdev_lvol_delete_lvstore", { lvs_name: store }), "Busy")
              yield* client.call("bdev_error_resume_pending", { name: held.name })
              yield* Fiber.join(reading)
              return deleting
            })
          )
          yield* Fiber.join(deletion)
          yield* client.call("bdev_lvol_delete_lvstore", { lvs_name: store })
        })
      )
    }

    check("does not repeat long texts in messages", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        for (const length of [20_000, 400_000]) {
          const long = "x".repeat(length)
          for (const call of [
            client.call(long),
            client.call("bdev_get_bdevs", { name: long }),
            client.call("bdev_split_create", { base_bdev: long, split_count: 0 }),
            // The wrong type is what this test is about.
            Rpc.call("bdev_error_inject_error", { name: "n", io_type: long as "all", error_type: "failure" })
          ]) {
            const error = yield* Effect.flip(call)
            assert.isBelow(error.message.length, 2500, error.message.slice(0, 100))
          }
        }
      })
    )

    check("finds the errno in the words of answers whose code is JSON-RPC's", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        yield* nullBdev(client, bdev)
        const missing = fresh("missing")
        yield* failsWith(client.call("bdev_split_delete", { base_bdev: missing }), "NotFound", { errno: "ENOENT" })
        yield* client.call("bdev_split_create", { base_bdev: bdev, split_count: 2 })
        const again = client.call("bdev_split_create", { base_bdev: bdev, split_count: 2 })
        yield* failsWith(again, "AlreadyExists", { errno: "EEXIST", rpcCode: -32602 })
        yield* client.call("bdev_split_delete", { base_bdev: bdev })
        yield* failsWith(client.call("bdev_split_create", { base_bdev: bdev, split_count: 0 }), "InvalidArgument")
        yield* failsWith(
          client.call("bdev_delay_update_latency", {
            delay_bdev_name: missing,
            latency_type: "avg_read",
            latency_us: 1
          }),
          "NotFound"
        )
      })
    )

    check("keeps the order of calls that one fiber makes", () =>
      Effect.gen(function* () {
        const client = yield* Rpc.RpcClient
        const bdev = fresh("null")
        for (let round = 0; round < 50; round++) {
          yield* client.call("bdev_null_create", { name: bdev, num_blocks: 64, block_size: 512 })
          yield* client.call("bdev_null_delete", { name: bdev })
        }
        yield* failsWith(client.call("bdev_get_bdevs", { name: bdev }), "NotFound")
      })
    )
  })
