/** What the target does with answers that a real one gives seldom: refusals in races, hosts that stay, ends that have to wait. */
import * as Rpc from "@effect-spdk/core/Rpc"
import { isSpdkError } from "@effect-spdk/core/SpdkError"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Exit from "effect/Exit"
import * as NvmfTarget from "../src/NvmfTarget.ts"
import { type Answer, fakeRpc, refusal } from "./fakeRpc.ts"

const nqn = "nqn.2026-01.com.example:fake"
const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: "4420" }
const tcp = { trtype: "TCP", max_queue_depth: 128, c2h_success: true }

/** A target with one subsystem, as far as these tests go. */
const world = (overrides: Readonly<Record<string, Answer>> = {}) => {
  const state = {
    exists: false,
    listeners: new Array<Schema.Json>(),
    namespaces: new Array<Schema.Json>(),
    hosts: 2
  }
  const subsystem = () => ({
    nqn,
    subtype: "NVMe",
    listen_addresses: state.listeners,
    allow_any_host: false,
    hosts: [],
    namespaces: state.namespaces
  })
  const answers: Record<string, Answer> = {
    nvmf_get_transports: () => [tcp],
    nvmf_get_subsystems: () => (state.exists ? [subsystem()] : []),
    nvmf_create_subsystem: () => (state.exists = true),
    nvmf_subsystem_add_listener: () => state.listeners.push(address) > 0,
    nvmf_subsystem_remove_listener: () => (state.listeners = []).length === 0,
    nvmf_subsystem_add_ns: () => state.namespaces.push({ nsid: 1, bdev_name: "b" }),
    nvmf_subsystem_remove_ns: () => (state.namespaces = []).length === 0,
    nvmf_subsystem_get_controllers: () =>
      state.hosts-- > 0 ? [{ cntlid: 1, hostnqn: "h", hostid: "i", num_io_qpairs: 1 }] : [],
    nvmf_delete_subsystem: () => !(state.exists = false),
    ...overrides
  }
  return { state, ...fakeRpc(answers) }
}

const run = <A, E>(
  client: Rpc.RpcClient["Service"],
  effect: (target: NvmfTarget.NvmfTarget["Service"]) => Effect.Effect<A, E, Scope.Scope>,
  options?: NvmfTarget.TargetOptions
) => NvmfTarget.make(options).pipe(Effect.flatMap(effect), Effect.scoped, Effect.provideService(Rpc.RpcClient, client))

const removals = (calls: ReadonlyArray<string>): ReadonlyArray<string> =>
  calls.filter((call) => /remove|delete|controllers/.test(call))

describe("NvmfTarget", () => {
  it.live("ends: listeners, then hosts until they are gone, then namespaces, then the subsystem, each once", () =>
    Effect.gen(function* () {
      const { calls, client } = world()
      yield* run(client, (target) =>
        Effect.gen(function* () {
          const subsystem = yield* target.subsystem({ nqn })
          yield* subsystem.addListener()
          yield* subsystem.addNamespace({ bdev: "b" })
        })
      )
      assert.deepStrictEqual(removals(calls), [
        "nvmf_subsystem_remove_listener",
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_remove_ns",
        "nvmf_delete_subsystem"
      ])
    })
  )

  it.live("a host that stays holds the end up for the drain's time and no longer", () =>
    Effect.gen(function* () {
      const { calls, client, state } = world()
      state.hosts = Number.POSITIVE_INFINITY
      yield* run(client, (target) => target.subsystem({ nqn }), { drainTimeout: "100 millis" })
      assert.strictEqual(calls.at(-1), "nvmf_delete_subsystem")
      assert.isFalse(state.exists)
    })
  )

  it.live("a part in a scope of its own ends with that, and the rest stays", () =>
    Effect.gen(function* () {
      const { calls, client, state } = world()
      yield* run(client, (target) =>
        Effect.gen(function* () {
          const subsystem = yield* target.subsystem({ nqn })
          const inner = yield* Scope.make()
          yield* subsystem.addNamespace({ bdev: "b" }).pipe(Scope.provide(inner))
          yield* Scope.close(inner, Exit.void)
          assert.deepStrictEqual(removals(calls), ["nvmf_subsystem_remove_ns"])
          assert.isTrue(state.exists)
        })
      )
    })
  )

  it.live("a deletion that meets another change of state tries again", () =>
    Effect.gen(function* () {
      let refusals = 2
      const { client, state, calls } = world({
        nvmf_delete_subsystem: () => {
          if (refusals-- > 0) {
            const words = "Subsystem currently in another state change try again later."
            return refusal("nvmf_delete_subsystem", -32603, words)
          }
          state.exists = false
          return true
        }
      })
      yield* run(client, (target) => target.subsystem({ nqn }))
      assert.strictEqual(calls.filter((call) => call === "nvmf_delete_subsystem").length, 3)
    })
  )

  it.effect("a refusal that nothing explains stays as SPDK has said it", () =>
    Effect.gen(function* () {
      const { client } = world({
        nvmf_create_subsystem: () => refusal("nvmf_create_subsystem", -32603, "Unable to create subsystem")
      })
      const error = yield* Effect.flip(run(client, (target) => target.subsystem({ nqn })))
      assert.isTrue(isSpdkError(error) && error.reason._tag === "RpcFailed")
    })
  )

  it.effect(
    "reservations are masked where a command of theirs ends the target, unless all commands are asked for",
    () =>
      Effect.gen(function* () {
        const masked = Effect.fnUntraced(function* (version: string, options?: NvmfTarget.TransportOptions) {
          let params: Record<string, unknown> = {}
          const { client } = world({
            spdk_get_version: () => ({ version, fields: { major: 1, minor: 1, patch: 0, suffix: "" } }),
            nvmf_get_transports: () => [],
            nvmf_create_transport: (given) => {
              params = given
              return true
            }
          })
          const transports = options === undefined ? {} : { transports: [options] }
          yield* run(client, () => Effect.void, transports)
          return params["masked_oncs"]
        })
        assert.deepStrictEqual(yield* masked("SPDK v26.05 git sha1 d519b163cb"), ["reservs"])
        assert.deepStrictEqual(yield* masked("SPDK v26.09-pre"), ["reservs"])
        assert.isUndefined(yield* masked("SPDK v25.09"))
        assert.isUndefined(yield* masked("effect-spdk embedded 0.1.0"))
        assert.deepStrictEqual(yield* masked("SPDK v26.05", { trtype: "TCP", maskedCommands: [] }), [])
        assert.deepStrictEqual(yield* masked("SPDK v26.05", { trtype: "TCP", maskedCommands: ["nvmcpys"] }), [
          "nvmcpys"
        ])
      })
  )

  it.effect("a transport that somebody else makes in the same moment is shared", () =>
    Effect.gen(function* () {
      let made = false
      const { client } = world({
        nvmf_get_transports: () => (made ? [tcp] : []),
        nvmf_create_transport: () => {
          made = true
          return refusal("nvmf_create_transport", -32603, "Transport type 'TCP' already exists")
        }
      })
      yield* run(client, () => Effect.void, { transports: [{ trtype: "TCP", c2hSuccess: true }] })
    })
  )

  it.effect("an answer in another shape is RpcProtocol, naming the place", () =>
    Effect.gen(function* () {
      const { client } = world({ nvmf_get_stats: () => ({ tick_rate: "fast", poll_groups: [] }) })
      const error = yield* Effect.flip(run(client, (target) => target.stats))
      assert.isTrue(isSpdkError(error) && error.reason._tag === "RpcProtocol")
      assert.include(String(error), "tick_rate")
    })
  )

  it.effect("masked commands that there are not are refused, and none is sent", () =>
    Effect.gen(function* () {
      const { calls, client } = world({ nvmf_get_transports: () => [] })
      for (const [field, value] of [
        ["maskedCommands", ["nvmcmps", "read"]],
        ["maskFusedCompareAndWrite", "yes"]
      ] as const) {
        // A program in JavaScript, or options from outside, may say anything.
        const options: object = { trtype: "TCP", [field]: value }
        const transports = [options as NvmfTarget.TransportOptions]
        const error = yield* Effect.flip(run(client, () => Effect.void, { transports }))
        assert.isTrue(isSpdkError(error) && error.reason._tag === "InvalidArgument" && error.reason.field === field)
      }
      assert.deepStrictEqual(calls, [])
    })
  )

  it.effect("options of another transport are refused", () =>
    Effect.gen(function* () {
      const { calls, client } = world({ nvmf_get_transports: () => [] })
      // A program in JavaScript, or options from outside, may say anything.
      const options: object = { trtype: "TCP", noSrq: true }
      const transports = [options as NvmfTarget.TransportOptions]
      const error = yield* Effect.flip(run(client, () => Effect.void, { transports }))
      assert.isTrue(isSpdkError(error) && error.reason._tag === "InvalidArgument" && error.reason.field === "noSrq")
      assert.deepStrictEqual(calls, [])
    })
  )
})
