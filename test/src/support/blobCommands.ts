/**
 * Random commands on a blobstore, written down with what came of them. The same seed gives the same commands as long as the same
 * results come back, so that the first line in which two transcripts differ is where two drivers differ.
 */
import type * as Blob from "@effect-spdk/blobstore/Blob"
import type * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { device, init, KiB, load, MiB } from "./blobs.ts"
import { anyExternal, makeExternals } from "./blobExternals.ts"
import { pattern } from "./bytes.ts"
import { EngineService } from "./internals.ts"
import { makeRandom, type RandomSource } from "./random.ts"

interface Opened {
  readonly blob: Blob.Blob
  readonly scope: Scope.Closeable
}

interface State {
  readonly random: RandomSource
  readonly load: (forceRecover: boolean) => Effect.Effect<Blobstore.Blobstore, SpdkError, Scope.Scope>
  store: Blobstore.Blobstore
  scope: Scope.Closeable
  /** Of all blobs that were made and not deleted. */
  ids: Array<number>
  readonly opened: Map<number, Opened>
}

type Call<A = unknown> = Effect.Effect<A, SpdkError>
interface Command {
  readonly text: string
  readonly call: Call
}

export interface Transcript {
  readonly seed: number
  readonly lines: ReadonlyArray<string>
}

const clusterBytes = 16 * KiB
const deviceBytes = 2 * MiB
const unit = 512
/** One that no store of this size has. */
const nobody = 2 ** 32 + 99_999

const hash = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex").slice(0, 12)
const short = (id: number): string => `#${id - 2 ** 32}`

const storeCommands: ReadonlyArray<(state: State) => Command> = [
  (state) => {
    const { random, store } = state
    const options = {
      clusters: random.below(random.chance(0.1) ? 200 : 10),
      thin: random.chance(0.5),
      extentTable: random.chance(0.8),
      externalSnapshot: random.chance(0.25) ? anyExternal(random) : undefined,
      xattrs: random.chance(0.3) ? { made: pattern(random.below(random.chance(0.2) ? 3000 : 60), random.word()) } : {}
    }
    const kind = `${options.thin ? " thin" : ""}${options.extentTable ? "" : " rle"}`
    const over = options.externalSnapshot === undefined ? "" : ` over ${options.externalSnapshot}`
    const text = `create ${options.clusters}${kind}${over}`
    const call = Effect.tap(store.createId(options), (id) => Effect.sync(() => state.ids.push(id)))
    return { text, call: Effect.map(call, short) }
  },
  (state) => {
    const id = anyId(state)
    const call = Effect.tap(state.store.delete(id), () => Effect.sync(() => forget(state, id)))
    return { text: `delete ${short(id)}`, call }
  },
  (state) => {
    const id = anyId(state)
    const call = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const exit = yield* Effect.exit(Scope.provide(state.store.open(id), scope))
      if (Exit.isSuccess(exit)) state.opened.set(id, { blob: exit.value, scope })
      else yield* Scope.close(scope, Exit.void)
      return yield* Exit.asVoid(exit)
    })
    return state.opened.has(id)
      ? { text: `close ${short(id)}`, call: close(state, id) }
      : { text: `open ${short(id)}`, call }
  },
  (state) => derived(state, "snapshot", (id) => state.store.snapshot(id)),
  (state) => derived(state, "clone", (id) => state.store.clone(id)),
  (state) => onId(state, "inflate", (id) => state.store.inflate(id)),
  (state) => onId(state, "decouple", (id) => state.store.decouple(id)),
  (state) => {
    const parent = anyId(state)
    return onId(state, `setParent ${short(parent)} of`, (id) => state.store.setParent(id, parent))
  },
  (state) => {
    const bdev = anyExternal(state.random)
    return onId(state, `setExternalParent ${bdev} of`, (id) => state.store.setExternalParent(id, bdev))
  },
  (state) => onId(state, "parent of", (id) => state.store.parent(id)),
  (state) => onId(state, "clones of", (id) => Effect.map(state.store.clones(id), (ids) => ids.toSorted().map(short))),
  (state) => onId(state, "setSuperBlob", (id) => state.store.setSuperBlob(id)),
  ({ store }) => ({ text: "superBlob", call: Effect.map(store.superBlob, (id) => id ?? "none") }),
  ({ store }) => ({ text: "ids", call: Effect.map(store.ids, (ids) => ids.map(short)) }),
  ({ store }) => ({ text: "info", call: store.info }),
  (state) => {
    const forceRecover = state.random.chance(0.5)
    return { text: forceRecover ? "reload by force" : "reload", call: reload(state, forceRecover) }
  }
]

const blobCommands: ReadonlyArray<(state: State, blob: Blob.Blob) => Command> = [
  ({ random }, blob) => {
    const [offset, length] = anyRange(random, blob, 1)
    const bytes = pattern(length, random.word())
    const call = whole(blob, offset, length, (fits) => blob.writeBytes(offset, bytes.subarray(0, fits)))
    return { text: `writeBytes ${offset}+${length}`, call }
  },
  ({ random }, blob) => {
    const [offset, length] = anyRange(random, blob, 1)
    return { text: `readBytes ${offset}+${length}`, call: Effect.map(blob.readBytes(offset, length), hash) }
  },
  (_, blob) => ({ text: "read all", call: Effect.map(blob.readBytes(0, blob.sizeBytes), hash) }),
  ({ random }, blob) => {
    const [offset, length] = anyRange(random, blob, random.chance(0.5) ? unit : clusterBytes)
    return { text: `unmap ${offset}+${length}`, call: blob.unmap(offset, length) }
  },
  ({ random }, blob) => {
    const [offset, length] = anyRange(random, blob, random.chance(0.5) ? unit : clusterBytes)
    return {
      text: `writeZeroes ${offset}+${length}`,
      call: whole(blob, offset, length, (fits) => blob.writeZeroes(offset, fits))
    }
  },
  ({ random }, blob) => {
    const clusters = random.below(random.chance(0.1) ? 200 : 12)
    return { text: `resize ${clusters}`, call: blob.resize({ clusters }) }
  },
  (_, blob) => ({ text: "sync", call: blob.sync }),
  ({ random }, blob) => {
    const name = `x${random.below(4)}`
    const value = pattern(random.below(random.chance(0.2) ? 4000 : 50), random.word())
    return { text: `set ${name} to ${value.length} bytes`, call: blob.xattrs.set(name, value) }
  },
  ({ random }, blob) => {
    const name = `x${random.below(4)}`
    return { text: `remove ${name}`, call: blob.xattrs.remove(name) }
  },
  (_, blob) => ({
    text: "xattrs",
    call: Effect.map(blob.xattrs.entries, (all) => [...all].map(([name, value]) => `${name}=${hash(value)}`).toSorted())
  }),
  (_, blob) => ({ text: "info", call: Effect.map(blob.info, (info) => ({ ...info, id: short(info.id) })) }),
  ({ random }, blob) => {
    const from = random.below(blob.sizeBytes + 1)
    const call = Effect.all([blob.nextAllocated(from), blob.nextUnallocated(from)])
    return { text: `next from ${from}`, call: Effect.map(call, (found) => found.map(Option.getOrNull)) }
  },
  ({ random }, blob) =>
    random.chance(0.2)
      ? { text: "setReadOnly and sync", call: Effect.andThen(blob.setReadOnly, blob.sync) }
      : { text: "sync", call: blob.sync }
]

const anyId = ({ ids, random }: State): number => (ids.length === 0 || random.chance(0.03) ? nobody : random.pick(ids))

const anyRange = (random: RandomSource, blob: Blob.Blob, grain: number): readonly [number, number] => {
  // A little past the end, sometimes.
  const grains = Math.max(1, Math.floor(blob.sizeBytes / grain)) + (random.chance(0.05) ? 1 : 0)
  const from = random.below(grains)
  const most = random.chance(0.3) ? grains - from : Math.min(grains - from, Math.max(1, Math.floor(20_000 / grain)))
  return [from * grain, (1 + random.below(most)) * grain]
}

/**
 * Inside one cluster where the blob is thin: how much of a longer write is there after NoSpace depends on what came first, which
 * is nobody's promise.
 */
const whole = (blob: Blob.Blob, offset: number, length: number, write: (lengthBytes: number) => Call): Call =>
  Effect.flatMap(blob.info, ({ isThin }) =>
    write(isThin ? Math.min(length, clusterBytes - (offset % clusterBytes)) : length)
  )

const onId = (state: State, text: string, call: (id: number) => Call): Command => {
  const id = anyId(state)
  return { text: `${text} ${short(id)}`, call: call(id) }
}

const derived = (state: State, text: string, call: (id: number) => Call<number>): Command => {
  const id = anyId(state)
  const made = Effect.tap(call(id), (child) => Effect.sync(() => state.ids.push(child)))
  return { text: `${text} of ${short(id)}`, call: Effect.map(made, short) }
}

const forget = (state: State, id: number): void => {
  state.ids = state.ids.filter((one) => one !== id)
}

const close = (state: State, id: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const opened = state.opened.get(id)
    state.opened.delete(id)
    return opened === undefined ? Effect.void : Scope.close(opened.scope, Exit.void)
  })

const closeStore = (state: State): Effect.Effect<void> =>
  Effect.forEach([...state.opened.keys()], (id) => close(state, id), { discard: true }).pipe(
    Effect.andThen(Effect.suspend(() => Scope.close(state.scope, Exit.void)))
  )

const reload = (state: State, forceRecover: boolean): Call =>
  Effect.gen(function* () {
    yield* closeStore(state)
    state.scope = yield* Scope.make()
    state.store = yield* Scope.provide(state.load(forceRecover), state.scope)
  })

const shown = (exit: Exit.Exit<unknown, SpdkError>): string => {
  if (Exit.isSuccess(exit)) return JSON.stringify(exit.value ?? "done")
  const failure = exit.cause.reasons.find((reason) => reason._tag === "Fail")
  return failure === undefined ? `died: ${String(exit.cause)}` : failure.error.reason._tag
}

const nextCommand = (state: State): Command => {
  const { opened, random } = state
  if (opened.size === 0 || random.chance(0.4)) {
    // Blobs to work with come first.
    const made = state.ids.length < 3 ? 3 : storeCommands.length
    return random.pick(storeCommands.slice(0, made))(state)
  }
  const [id, { blob }] = random.pick([...opened])
  const command = random.pick(blobCommands)(state, blob)
  return { ...command, text: `${short(id)}: ${command.text}` }
}

/** Everything that can be seen of the store, and that nothing is left of it when all blobs are deleted. */
const lookAtAll = (state: State, lines: Array<string>) =>
  Effect.forEach(
    state.ids.toSorted((a, b) => a - b),
    (id) =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Effect.scoped(
            Effect.gen(function* () {
              const blob = yield* state.store.open(id)
              const names = [...(yield* blob.xattrs.entries).keys()].toSorted()
              const bytes = hash(yield* blob.readBytes(0, blob.sizeBytes))
              return { ...(yield* blob.info), names, bytes }
            })
          )
        )
        lines.push(`${short(id)} is ${shown(exit)}`)
      }),
    { discard: true }
  )

/** What transcripts need of an engine beforehand, for the scope. */
export const prepare = makeExternals(clusterBytes)

/** Runs so many commands of this seed on a store of its own, and looks at everything at the end and after a load. */
export const transcript = (seed: number, commands: number, driver: Blobstore.DriverKind) =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    return Effect.tapCause(run(seed, commands, driver, lines), () =>
      Effect.sync(() => console.error(`EFFECT_SPDK_SEED=${seed} on ${driver} came as far as\n  ${lines.join("\n  ")}`))
    )
  })

const run = (seed: number, commands: number, driver: Blobstore.DriverKind, lines: Array<string>) =>
  Effect.gen(function* () {
    const bdev = yield* device({ sizeBytes: deviceBytes, blockSize: unit })
    const engine = yield* EngineService
    const random = makeRandom(seed)
    const scope = yield* Scope.make()
    const store = yield* Scope.provide(init(bdev, driver, { clusterSize: clusterBytes, metadataPages: 96 }), scope)
    const reopen = (forceRecover: boolean) =>
      load(bdev, driver, { forceRecover }).pipe(Effect.provideService(EngineService, engine))
    const state: State = { random, load: reopen, store, scope, ids: [], opened: new Map() }
    yield* Effect.addFinalizer(() => closeStore(state))
    const carryOut = (command: Command) =>
      Effect.flatMap(Effect.exit(command.call), (exit) => {
        lines.push(`${command.text} -> ${shown(exit)}`)
        return Exit.hasDies(exit) ? Exit.asVoid(exit) : Effect.void
      })
    for (let step = 0; step < commands; step++) {
      yield* carryOut(nextCommand(state))
      lines.push(`free ${(yield* state.store.info).freeClusters}`)
    }
    yield* lookAtAll(state, lines)
    for (const forceRecover of [false, true]) {
      yield* carryOut({ text: "reload", call: reload(state, forceRecover) })
      yield* lookAtAll(state, lines)
      yield* carryOut({ text: "info", call: Effect.suspend(() => state.store.info) })
    }
    const transcribed: Transcript = { seed, lines }
    return transcribed
  }).pipe(Effect.scoped)
