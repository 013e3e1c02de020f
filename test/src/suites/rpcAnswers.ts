/** What both engines answer to calls that only read: the same fields, of the same things. */
import * as Poller from "@effect-spdk/core/Poller"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { type Capabilities, type EngineLayer, memoryMiB } from "../support/engines.ts"
import { furnish } from "../support/furnish.ts"
import { contract, fresh } from "../support/harness.ts"
import { speaksAsEmbedded } from "../support/spdkVersion.ts"

const reading = [
  "spdk_get_version",
  "framework_get_reactors",
  "framework_get_scheduler",
  "framework_get_subsystems",
  "thread_get_stats",
  "thread_get_pollers",
  "thread_get_io_channels",
  "bdev_get_bdevs",
  "bdev_get_iostat",
  "bdev_nvme_get_controllers",
  "bdev_nvme_get_io_paths",
  "nvmf_get_subsystems",
  "nvmf_get_transports",
  "nvmf_get_targets",
  "nvmf_get_stats",
  "notify_get_types",
  "notify_get_notifications",
  "log_get_level",
  "log_get_print_level"
] as const

const readingOfSubsystem = [
  "nvmf_subsystem_get_controllers",
  "nvmf_subsystem_get_qpairs",
  "nvmf_subsystem_get_listeners"
] as const

/** The paths of all fields that the value has, with the elements of arrays taken together. */
const fieldsOf = (value: unknown, path = "", found = new Set<string>()): ReadonlySet<string> => {
  if (Array.isArray(value)) for (const one of value) fieldsOf(one, `${path}[]`, found)
  else if (typeof value === "object" && value !== null) {
    for (const [name, field] of Object.entries(value)) {
      found.add(`${path}.${name}`)
      fieldsOf(field, `${path}.${name}`, found)
    }
  }
  return found
}

const answers = (nqn: string) =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    const all = new Map<string, unknown>()
    for (const method of reading) all.set(method, yield* client.call(method))
    for (const method of readingOfSubsystem) all.set(method, yield* client.call(method, { nqn }))
    return all
  })

const attach = ({ nqn, port }: { readonly nqn: string; readonly port: string }) =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    const name = fresh("remote")
    const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: port, subnqn: nqn }
    yield* Effect.acquireRelease(client.call("bdev_nvme_attach_controller", { name, ...address }), () =>
      Effect.ignore(client.call("bdev_nvme_detach_controller", { name }))
    )
  })

/** One of each kind, so that both kinds have fields. */
const pollers = Effect.forEach(["1 second", 0] as const, (period) =>
  Effect.forkScoped(Stream.runDrain(Poller.ticks({ period })), { startImmediately: true })
)

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("the embedded engine tells all that libspdk tells", () =>
      Effect.gen(function* () {
        yield* speaksAsEmbedded
        const other = yield* Layer.build(Spdk.layerEmbedded({ name: "other", memoryMiB, logLevel: "error" }))
        const onOther = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, other)
        const here = yield* furnish
        const there = yield* onOther(furnish)
        yield* attach(there)
        yield* onOther(attach(here))
        yield* pollers
        yield* onOther(pollers)
        const expected = yield* answers(here.nqn)
        const actual = yield* onOther(answers(there.nqn))
        const missing: Array<string> = []
        const more: Array<string> = []
        for (const [method, answer] of expected) {
          const fields = fieldsOf(answer)
          const given = fieldsOf(actual.get(method))
          for (const field of fields) if (!given.has(field)) missing.push(`${method} ${field}`)
          for (const field of given) if (!fields.has(field)) more.push(`${method} ${field}`)
        }
        assert.deepStrictEqual(missing, [], "what libspdk tells and the embedded engine does not")
        assert.deepStrictEqual(more, [], "what the embedded engine tells and libspdk does not")
        assert.strictEqual(Context.get(other, Spdk.Spdk).kind, "embedded")
      })
    )
  })
