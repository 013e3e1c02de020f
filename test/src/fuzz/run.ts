/** Runs one case, and gives back what it has made. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import type * as Spdk from "@effect-spdk/core/Spdk"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { rmSync } from "node:fs"
import type { Call, FuzzCase, Json } from "./cases.ts"

type Client = Rpc.RpcClient["Service"]

/** How long one call may take on a busy machine. */
const callLimit = "20 seconds"

export interface Outcome {
  /** What must never be: a defect, a release that gave up. */
  readonly findings: ReadonlyArray<string>
  /** What SPDK did not give back, which only methods without checks can cause. */
  readonly stuck: ReadonlyArray<string>
}

const withPrefix = (value: Json, prefix: string, folder: string): Json => {
  if (typeof value === "string") {
    return value === "@file" ? `${folder}/${prefix}` : value.replaceAll("@", prefix)
  }
  if (Array.isArray(value)) return value.map((one: Json) => withPrefix(one, prefix, folder))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, withPrefix(one as Json, prefix, folder)]))
}

type Creation = Effect.Effect<unknown, unknown, Spdk.Services | Scope.Scope>

/** What a program in JavaScript could pass: the options of a case fit no type. */
const creators: { readonly [method: string]: (options: never) => Creation } = {
  createMalloc: Bdev.createMalloc,
  createNull: Bdev.createNull,
  createFile: Bdev.createFile,
  createUring: Bdev.createUring,
  createPassthru: Bdev.createPassthru,
  createDelay: Bdev.createDelay,
  createError: Bdev.createError,
  createSplit: Bdev.createSplit
}

const callOf = (client: Client, call: Call, errors: Map<string, Bdev.ErrorBdev>): Creation => {
  if (call.via === "rpc") {
    const sent = client.call(call.method, call.params, { timeout: callLimit })
    if (call.method !== "bdev_split_create" || call.params["split_size_mb"] !== undefined) return sent
    // Without a size it divides when a base comes later that has fewer blocks than parts: nobody can know that in advance.
    return Effect.andThen(client.call("bdev_get_bdevs", { name: call.params["base_bdev"] }), sent)
  }
  // See `creators`.
  const options = call.params as never
  if (call.method === "inject") {
    return Effect.suspend(() => [...errors.values()].at(-1)?.inject(options) ?? Effect.void)
  }
  const made = creators[call.method]?.(options) ?? Effect.void
  return call.method === "createError"
    ? Effect.tap(made as ReturnType<typeof Bdev.createError>, (bdev) => Effect.sync(() => errors.set(bdev.name, bdev)))
    : made
}

/** A little I/O at the start and at the end of everything that the case has made. */
const exercise = (names: ReadonlyArray<string>): Effect.Effect<void, never, Spdk.Services> =>
  Effect.forEach(
    names.slice(0, 8),
    (name) =>
      Effect.scoped(
        Effect.gen(function* () {
          const bdev = yield* Bdev.open(name, { write: true }).pipe(Effect.catch(() => Bdev.open(name)))
          if (bdev.blockSize > 1024 ** 2 || bdev.numBlocks === 0) return
          const last = bdev.sizeBytes - bdev.blockSize
          for (const offset of new Set([0, last])) {
            yield* Effect.exit(bdev.readBytes(offset, bdev.blockSize))
            if (bdev.writable) yield* Effect.exit(bdev.writeBytes(offset, new Uint8Array(bdev.blockSize)))
          }
          if (!bdev.writable) return
          yield* Effect.exit(bdev.writeZeroes(last, bdev.blockSize))
          yield* Effect.exit(bdev.unmap(0, bdev.blockSize))
          yield* Effect.exit(bdev.flush())
        })
      ).pipe(
        // Interruption is another test's: what is exercised here answers.
        Effect.timeout("20 seconds"),
        Effect.exit,
        Effect.provideService(Bdev.ReleaseTimeout, "30 seconds")
      ),
    { discard: true }
  )

/** I/O on a bdev that is to answer in a day, or to hold requests back, waits as it was told. */
const isSlow = ({ calls }: FuzzCase): boolean =>
  calls.some(
    ({ method, params }) =>
      /inject/.test(method) ||
      (/delay/i.test(method) && Object.values(params).some((value) => typeof value === "number" && value > 100_000))
  )

const deletionOf = (bdev: Bdev.BdevInfo): readonly [method: string, params: { readonly [name: string]: Json }] => {
  const { name, productName } = bdev
  switch (productName) {
    case "Malloc disk":
      return ["bdev_malloc_delete", { name }]
    case "Null disk":
      return ["bdev_null_delete", { name }]
    case "AIO disk":
      return ["bdev_aio_delete", { name }]
    case "URING bdev":
      return ["bdev_uring_delete", { name }]
    case "passthru":
      return ["bdev_passthru_delete", { name }]
    case "delay":
      return ["bdev_delay_delete", { name }]
    case "Error Injection Disk":
      return ["bdev_error_delete", { name }]
    case "Split Disk":
      return ["bdev_split_delete", { base_bdev: name.replace(/p\d+$/, "") }]
    case "Logical Volume":
      return ["bdev_lvol_delete", { name }]
    case "Raid Volume":
      return ["bdev_raid_delete", { name }]
    default:
      return ["bdev_zone_block_delete", { name }]
  }
}

const withoutBigints = (_: string, value: unknown): unknown => (typeof value === "bigint" ? `${value}` : value)

const namesIn = (answer: unknown, field: string): ReadonlyArray<string> =>
  Array.isArray(answer)
    ? answer.flatMap((one: unknown) => {
        const value: unknown = typeof one === "object" && one !== null ? Reflect.get(one, field) : undefined
        return typeof value === "string" ? [value] : []
      })
    : []

/** Takes away what methods have made, from above; whatever is left after that is stuck. */
const cleanUp = (client: Client, prefix: string): Effect.Effect<ReadonlyArray<string>, never, Rpc.RpcClient> =>
  Effect.gen(function* () {
    const ask = (method: string, params?: { readonly [name: string]: Json }) =>
      Effect.exit(client.call(method, params, { timeout: "5 seconds" }))
    const listed = function* (method: string, field: string) {
      const exit = yield* ask(method)
      return Exit.isSuccess(exit) ? namesIn(exit.value, field).filter((name) => name.includes(prefix)) : []
    }
    for (const nqn of yield* listed("nvmf_get_subsystems", "nqn")) yield* ask("nvmf_delete_subsystem", { nqn })
    let left: ReadonlyArray<string> = []
    for (let round = 0; round < 8; round++) {
      const bdevs = yield* Effect.orElseSucceed(Bdev.list, () => [])
      // Also what has another name and stands on something of this case.
      const mine = bdevs.filter((bdev) => JSON.stringify(bdev, withoutBigints).includes(prefix))
      const stores = yield* listed("bdev_lvol_get_lvstores", "name")
      left = [...mine.map(({ name }) => name), ...stores]
      if (left.length === 0) return left
      const free = mine.filter(({ claimed }) => !claimed)
      for (const { name, productName } of free) {
        if (productName !== "Error Injection Disk") continue
        yield* ask("bdev_error_inject_error", { name, io_type: "clear", error_type: "failure" })
        yield* ask("bdev_error_resume_pending", { name })
      }
      for (const { name, productName } of free) {
        if (productName !== "delay") continue
        for (const latency_type of ["avg_read", "p99_read", "avg_write", "p99_write"]) {
          yield* ask("bdev_delay_update_latency", { delay_bdev_name: name, latency_type, latency_us: 0 })
        }
      }
      const deletions = new Map(free.map((bdev) => [JSON.stringify(deletionOf(bdev)), deletionOf(bdev)]))
      for (const [method, params] of deletions.values()) yield* ask(method, params)
      for (const lvs_name of stores) yield* ask("bdev_lvol_delete_lvstore", { lvs_name })
    }
    return left
  })

/** `index` makes the names of the case its own. */
export const runCase = (
  fuzzCase: FuzzCase,
  index: number,
  folder: string
): Effect.Effect<Outcome, never, Spdk.Services> =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    // No number's prefix is part of another one's.
    const prefix = `q${index}q`
    const findings: Array<string> = []
    const errors = new Map<string, Bdev.ErrorBdev>()
    const body = Effect.gen(function* () {
      for (const call of fuzzCase.calls) {
        const params = withPrefix(call.params, prefix, folder) as Call["params"]
        const exit = yield* Effect.exit(callOf(client, { ...call, params }, errors))
        if (Exit.isFailure(exit) && Cause.hasDies(exit.cause))
          findings.push(`${call.method}: ${Cause.pretty(exit.cause)}`)
      }
      const bdevs = yield* Effect.orElseSucceed(Bdev.list, () => [])
      const mine = bdevs.filter(({ claimed, name }) => !claimed && name.includes(prefix))
      if (!isSlow(fuzzCase)) yield* exercise(mine.map(({ name }) => name))
      // Injections and delays would keep what the end of the scope deletes.
      for (const { inject } of errors.values()) yield* Effect.exit(inject({ ioType: "clear", errorType: "failure" }))
      for (const name of errors.keys()) yield* Effect.exit(client.call("bdev_error_resume_pending", { name }))
    })
    const exit = yield* Effect.exit(Effect.provideService(Effect.scoped(body), Bdev.ReleaseTimeout, "30 seconds"))
    if (Exit.isFailure(exit)) findings.push(`the end of the scope: ${Cause.pretty(exit.cause)}`)
    const stuck = yield* cleanUp(client, prefix)
    rmSync(`${folder}/${prefix}`, { force: true })
    return { findings, stuck }
  })
