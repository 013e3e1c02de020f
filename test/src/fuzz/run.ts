/** Runs one case, and gives back what it has made. */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import type * as Spdk from "@effect-spdk/core/Spdk"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import type { Subsystem } from "@effect-spdk/nvmf/NvmfSubsystem"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { mkdirSync, rmSync } from "node:fs"
import type { Call, FuzzCase, Json } from "./cases.ts"

type Client = Rpc.RpcClient["Service"]

/** How patient a run is. One that is not sure says so, and the campaign looks at the case again with more patience. */
export interface Patience {
  readonly callSeconds: number
  readonly releaseSeconds: number
}

export const quick: Patience = { callSeconds: 5, releaseSeconds: 8 }
export const patient: Patience = { callSeconds: 15, releaseSeconds: 20 }

export interface Outcome {
  /** What must never be: a defect, a release that gave up, a call without an answer. */
  readonly findings: ReadonlyArray<string>
  /** What SPDK did not give back, which only methods without checks can cause. */
  readonly stuck: ReadonlyArray<string>
  /** What each call said: "ok", or the tag of the reason, with "*" before it when SPDK itself refused. */
  readonly answers: ReadonlyArray<string>
}

/** What JSON has no text for, by its name or its digits. */
const ofMark = (mark: string): number | bigint =>
  /^-?[0-9]+$/.test(mark) && mark !== "-0" ? BigInt(mark) : Number(mark)

/** The parameters as they are sent: with the prefix in place of "@", and what stands for itself. */
const withPrefix = (value: Json, prefix: string, folder: string): unknown => {
  if (typeof value === "string") {
    return value === "@file" ? `${folder}/${prefix}` : value.replaceAll("@", prefix)
  }
  if (Array.isArray(value)) return value.map((one: Json) => withPrefix(one, prefix, folder))
  if (typeof value !== "object" || value === null) return value
  if ("$" in value) return ofMark(String(value["$"]))
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, withPrefix(one as Json, prefix, folder)]))
}

type Params = { readonly [name: string]: unknown }
type Creation = Effect.Effect<unknown, unknown, Spdk.Services | Scope.Scope>

/** What a program in JavaScript could pass: the options of a case fit no type. */
type Creators = { readonly [method: string]: (options: never) => Creation }

/** What the calls of a case have made, for those after them. */
interface Made {
  readonly errors: Map<string, Bdev.ErrorBdev>
  target: NvmfTarget.NvmfTarget["Service"] | undefined
  subsystem: Subsystem | undefined
  store: Blobstore.Blobstore | undefined
  blob: Blob.Blob | undefined
}

const bdevCreators = ({ errors }: Made): Creators => ({
  createMalloc: Bdev.createMalloc,
  createNull: Bdev.createNull,
  createFile: Bdev.createFile,
  createUring: Bdev.createUring,
  createPassthru: Bdev.createPassthru,
  createDelay: Bdev.createDelay,
  createError: (options) =>
    Effect.tap(Bdev.createError(options), (bdev) => Effect.sync(() => errors.set(bdev.name, bdev))),
  createSplit: Bdev.createSplit,
  inject: (options) => [...errors.values()].at(-1)?.inject(options) ?? Effect.void
})

const nvmfCreators = (made: Made): Creators => {
  const target = Effect.suspend(() => (made.target === undefined ? NvmfTarget.make() : Effect.succeed(made.target)))
  const onSubsystem = (use: (subsystem: Subsystem) => Creation): Creation =>
    Effect.suspend(() => (made.subsystem === undefined ? Effect.void : use(made.subsystem)))
  return {
    target: (options) => Effect.tap(NvmfTarget.make(options), (one) => Effect.sync(() => (made.target = one))),
    subsystem: (options) =>
      Effect.flatMap(target, (one) =>
        Effect.tap(one.subsystem(options), (subsystem) => Effect.sync(() => (made.subsystem = subsystem)))
      ),
    addNamespace: (options) => onSubsystem((subsystem) => subsystem.addNamespace(options)),
    addListener: (options) => onSubsystem((subsystem) => subsystem.addListener(options)),
    addHost: (options) => onSubsystem((subsystem) => subsystem.addHost(options)),
    addReferral: (options) => Effect.flatMap(target, (one) => one.addReferral(options))
  }
}

const blobCreators = (made: Made, base: string): Creators => {
  const onBdev = (effect: Effect.Effect<Blobstore.Blobstore, unknown, Bdev.Bdev | Spdk.Services | Scope.Scope>) =>
    Bdev.open(base, { write: true }).pipe(
      Effect.flatMap((bdev) => Effect.provideService(effect, Bdev.Bdev, bdev)),
      Effect.tap((store) => Effect.sync(() => (made.store = store)))
    )
  const onStore = (use: (store: Blobstore.Blobstore) => Creation): Creation =>
    Effect.suspend(() => (made.store === undefined ? Effect.void : use(made.store)))
  const onBlob = (use: (blob: Blob.Blob, store: Blobstore.Blobstore) => Creation): Creation =>
    onStore((store) => (made.blob === undefined ? Effect.void : use(made.blob, store)))
  return {
    init: (options) => onBdev(Blobstore.init(options)),
    load: (options) => onBdev(Blobstore.load(options)),
    createBlob: (options) =>
      onStore((store) => Effect.tap(store.create(options), (blob) => Effect.sync(() => (made.blob = blob)))),
    resizeBlob: (options) => onBlob((blob) => blob.resize(options)),
    snapshot: (options) => onBlob((blob, store) => store.snapshot(blob.id, options)),
    clone: (options) => onBlob((blob, store) => store.clone(blob.id, options))
  }
}

const creationOf = (method: string, made: Made, prefix: string): ((options: never) => Creation) | undefined =>
  ({ ...bdevCreators(made), ...nvmfCreators(made), ...blobCreators(made, `${prefix}m`) })[method]

const callOf = (
  client: Client,
  call: Call,
  params: Params,
  made: Made,
  prefix: string,
  callSeconds: number
): Creation => {
  const timeout = `${callSeconds} seconds` as const
  if (call.via === "create") {
    // Whatever an option is: a function that throws instead of failing is a finding.
    const create = creationOf(call.method, made, prefix)
    return create === undefined ? Effect.void : Effect.suspend(() => create(params as never))
  }
  const sent =
    call.via === "typed"
      ? Rpc.callWith(client, call.method as "bdev_malloc_create", params as never, { timeout })
      : client.call(call.method, params, { timeout })
  if (call.method !== "bdev_split_create" || call.params["split_size_mb"] !== undefined) return sent
  // Without a size it divides when a base comes later that has fewer blocks than parts: nobody can know that in advance.
  return Effect.andThen(client.call("bdev_get_bdevs", { name: call.params["base_bdev"] }), sent)
}

const answerOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "ok"
  if (Cause.hasDies(exit.cause)) return "defect"
  const error = Cause.squash(exit.cause)
  if (typeof error !== "object" || error === null || !("reason" in error)) return String(error).slice(0, 40)
  const { reason } = error as SpdkError
  return `${"rpcCode" in reason && reason.rpcCode !== undefined ? "*" : ""}${reason._tag}`
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
        Effect.timeout("10 seconds"),
        Effect.exit
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

/** Every target of SPDK has it. */
const defaultTarget = "nvmf_tgt"
const discoveryNqn = "nqn.2014-08.org.nvmexpress.discovery"

/** How often what is left is tried again: something above may have been in the way. */
const rounds = 8

/** Takes away what methods have made and what has `prefix` in it, from above; whatever is left after that is stuck. */
export const cleanUp = (
  client: Client,
  prefix: string,
  callSeconds: number
): Effect.Effect<ReadonlyArray<string>, never, Rpc.RpcClient> =>
  Effect.gen(function* () {
    const ask = (method: string, params?: { readonly [name: string]: Json }) =>
      Effect.exit(client.call(method, params, { timeout: `${callSeconds} seconds` }))
    const listed = function* (method: string, field: string, params?: { readonly [name: string]: Json }) {
      const exit = yield* ask(method, params)
      return Exit.isSuccess(exit)
        ? (field === "" && Array.isArray(exit.value) ? exit.value.map(String) : namesIn(exit.value, field)).filter(
            (name) => name.includes(prefix)
          )
        : []
    }
    for (const nqn of yield* listed("nvmf_get_subsystems", "nqn")) {
      if (nqn !== discoveryNqn) yield* ask("nvmf_delete_subsystem", { nqn })
    }
    for (const name of yield* listed("nvmf_get_targets", "")) {
      if (name !== defaultTarget) yield* ask("nvmf_delete_target", { name })
    }
    // Some wait for base bdevs: those have no bdev, and their base bdevs are claimed.
    const raids = function* () {
      const exit = yield* ask("bdev_raid_get_bdevs", { category: "all" })
      return Exit.isSuccess(exit) && JSON.stringify(exit.value).includes(prefix) ? namesIn(exit.value, "name") : []
    }
    const isOfCase = (name: string) => name.includes(prefix)
    let left: ReadonlyArray<string> = []
    for (let round = 0; round < rounds; round++) {
      const bdevs = yield* Effect.orElseSucceed(Bdev.list, () => [])
      // Also what has another name and stands on something of this case.
      const mine = bdevs.filter((bdev) => JSON.stringify(bdev, withoutBigints).includes(prefix))
      const stores = yield* listed("bdev_lvol_get_lvstores", "name")
      left = [...mine.map(({ name }) => name), ...stores]
      if (left.length === 0) return left
      // A module that looks at a new bdev has it claimed meanwhile.
      if (answerOf(yield* ask("bdev_wait_for_examine")).includes("TimedOut")) return left
      for (const name of yield* raids()) {
        // The names of other cases are theirs.
        if (isOfCase(name) || !/^q[0-9]+q/.test(name)) yield* ask("bdev_raid_delete", { name })
      }
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
      for (const [method, params] of deletions.values()) {
        const exit = yield* ask(method, params)
        // Whoever does not answer will not do so in the next round.
        if (answerOf(exit).includes("TimedOut")) return left
      }
      for (const lvs_name of stores) yield* ask("bdev_lvol_delete_lvstore", { lvs_name })
    }
    return left
  })

/**
 * Whether the engine still makes and deletes bdevs, in time, when nothing else runs; and takes away what has no prefix, as bdevs
 * whose names are generated.
 */
export const checkHealth = (folder: string, { callSeconds, releaseSeconds }: Patience) =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    const findings: Array<string> = []
    const left = yield* cleanUp(client, "", callSeconds)
    if (left.length > 0) findings.push(`still there: ${left.join(", ").slice(0, 500)}`)
    const canary = Effect.scoped(Bdev.createNull({ size: "1 MiB" })).pipe(
      Effect.provideService(Bdev.ReleaseTimeout, `${releaseSeconds} seconds`)
    )
    const exit = yield* Effect.exit(canary)
    if (Exit.isFailure(exit)) findings.push(`a bdev afterwards: ${Cause.pretty(exit.cause)}`)
    // Each of them makes everything after it slower.
    yield* Effect.exit(client.call("log_clear_flag", { flag: "all" }, { timeout: `${callSeconds} seconds` }))
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    return findings
  })

/** Methods that wait by themselves for something that the case holds back. */
const mayWait = (fuzzCase: FuzzCase): boolean =>
  isSlow(fuzzCase) || fuzzCase.calls.some(({ method }) => method === "bdev_get_bdevs" || /error_inject/.test(method))

/** `index` makes the names of the case its own. */
export const runCase = (
  fuzzCase: FuzzCase,
  index: number,
  folder: string,
  patience: Patience
): Effect.Effect<Outcome, never, Spdk.Services> =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    // No number's prefix is part of another one's.
    const prefix = `q${index}q`
    const findings: Array<string> = []
    const answers: Array<string> = []
    const made: Made = {
      errors: new Map(),
      target: undefined,
      subsystem: undefined,
      store: undefined,
      blob: undefined
    }
    const { errors } = made
    const body = Effect.gen(function* () {
      for (const call of fuzzCase.calls) {
        const params = withPrefix(call.params, prefix, folder) as Params
        const exit = yield* Effect.exit(callOf(client, call, params, made, prefix, patience.callSeconds))
        const answer = answerOf(exit)
        answers.push(answer)
        if (Exit.isFailure(exit) && Cause.hasDies(exit.cause))
          findings.push(`${call.method}: ${Cause.pretty(exit.cause)}`)
        if (answer.endsWith("TimedOut") && !mayWait(fuzzCase)) findings.push(`${call.method}: no answer`)
      }
      const bdevs = yield* Effect.orElseSucceed(Bdev.list, () => [])
      // Nobody writes over a store: what its end says then is right.
      const mine = bdevs.filter(
        ({ claimed, name }) => !claimed && name.includes(prefix) && (made.store === undefined || name !== `${prefix}m`)
      )
      if (!isSlow(fuzzCase)) yield* exercise(mine.map(({ name }) => name))
      // Injections and delays would keep what the end of the scope deletes.
      for (const { inject } of errors.values()) yield* Effect.exit(inject({ ioType: "clear", errorType: "failure" }))
      for (const name of errors.keys()) yield* Effect.exit(client.call("bdev_error_resume_pending", { name }))
    })
    const limit = `${patience.releaseSeconds} seconds` as const
    const exit = yield* Effect.exit(Effect.provideService(Effect.scoped(body), Bdev.ReleaseTimeout, limit))
    if (Exit.isFailure(exit)) findings.push(`the end of the scope: ${Cause.pretty(exit.cause)}`)
    const stuck = yield* cleanUp(client, prefix, patience.callSeconds)
    rmSync(`${folder}/${prefix}`, { force: true })
    return { findings, stuck, answers }
  })
