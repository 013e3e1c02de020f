/** The operations of a key-value store, each beside the model: a register per key, durable with every success. */
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import { together } from "./blobModel.ts"
import type { Action } from "./plan.ts"
import { endOf, type Watch } from "./violation.ts"

export const keyCount = 5
const absent = 0
const refusals = new Set(["NoSpace", "InvalidArgument"])
const faulty = new Set(["IoFailed", "DeviceRemoved", "TimedOut", "Aborted", "NotFound", "Released", "Busy"])

export class KeyModel {
  readonly time: Model.Time
  readonly keys: ReadonlyArray<Model.Register<number>>
  /** Of each stamp. */
  readonly lengths = new Map<number, number>()
  /** Interrupted, and perhaps still under way. */
  late: Array<Model.Change> = []
  private nextStamp = 1

  constructor(time: Model.Time) {
    this.time = time
    this.keys = Array.from({ length: keyCount }, () => Model.makeRegister(time, absent))
  }

  stamp(lengthBytes: number): number {
    const stamp = this.nextStamp++
    this.lengths.set(stamp, lengthBytes)
    return stamp
  }

  /** The store has ended: nothing comes any more. */
  closed(): void {
    for (const change of this.late) change.fail()
    this.late = []
  }

  crash(): void {
    this.closed()
    for (const key of this.keys) key.crash()
  }
}

const valueOf = (stamp: number, lengthBytes: number): Uint8Array => {
  const bytes = new Uint8Array(lengthBytes).fill(stamp & 255)
  new DataView(bytes.buffer).setUint32(0, stamp)
  return bytes
}

export class KeyWork {
  private readonly store: KeyValueStore.KeyValueStore
  private readonly model: KeyModel
  private readonly watch: Watch

  constructor(store: KeyValueStore.KeyValueStore, model: KeyModel, watch: Watch) {
    this.store = store
    this.model = model
    this.watch = watch
  }

  perform(action: Action): Effect.Effect<void> {
    return Effect.suspend(() => {
      switch (action._tag) {
        case "Set": {
          const stamp = this.model.stamp(action.lengthBytes)
          const value = valueOf(stamp, action.lengthBytes)
          return this.change(
            `set ${action.key} to ${stamp} of ${action.lengthBytes}`,
            [action.key],
            stamp,
            this.store.set(keyOf(action.key), value)
          )
        }
        case "Remove":
          return this.change(`remove ${action.key}`, [action.key], absent, this.store.remove(keyOf(action.key)))
        case "Clear":
          return this.change(
            "clear",
            this.model.keys.map((_, i) => i),
            absent,
            this.store.clear
          )
        case "Modify": {
          const stamp = this.model.stamp(200)
          const register = this.model.keys[action.key]
          const begin = this.model.time.next()
          let was = absent
          const modify = this.store.modifyUint8Array(keyOf(action.key), (value) => {
            was = this.stampOf(value)
            return valueOf(stamp, 200)
          })
          return this.change(
            `modify ${action.key} to ${stamp}`,
            [action.key],
            stamp,
            modify,
            (result) => {
              const isPossible = register?.possible(begin).includes(was)
              if (result !== undefined && isPossible === false)
                this.watch.violated(`modify of ${action.key} saw ${was}`)
            },
            (result) => result !== undefined
          )
        }
        case "Get":
          return this.get(action.key)
        case "Size":
          return this.attempt("size", this.store.size)
        default:
          return Effect.void
      }
    })
  }

  readonly verify: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(this.model.keys, (_, key) => this.get(key), { discard: true })
  )

  private get(key: number): Effect.Effect<void> {
    const register = this.model.keys[key]
    const begin = this.model.time.next()
    return this.attempt(
      `get ${key}`,
      Effect.map(this.store.getUint8Array(keyOf(key)), (value) => {
        const stamp = this.stampOf(value)
        const allowed = register?.possible(begin) ?? []
        if (register?.found(stamp, begin) === false) {
          this.watch.violated(`get ${key}: ${stamp}, and not ${[...allowed].join(" or ")}`)
        }
      })
    )
  }

  private change<A, E>(
    text: string,
    keys: ReadonlyArray<number>,
    stamp: number,
    effect: Effect.Effect<A, E>,
    onSuccess: (value: A) => void = () => {},
    hasChanged: (value: A) => boolean = () => true
  ): Effect.Effect<void> {
    const registers = keys.flatMap((key) => this.model.keys[key] ?? [])
    const change = together(registers.map((register) => register.begin(stamp)))
    return this.attempt(text, effect, change, (value) => {
      onSuccess(value)
      if (!hasChanged(value)) return change.refuse()
      change.succeed()
      const now = this.model.time.next()
      for (const register of registers) register.durableSince(now)
    })
  }

  private attempt<A, E>(
    text: string,
    effect: Effect.Effect<A, E>,
    change?: Model.Change,
    onSuccess: (value: A) => void = () => {}
  ): Effect.Effect<void> {
    this.watch.log(`${text} ...`)
    const { isGone } = this.watch
    return Effect.map(Effect.exit(Effect.interruptible(effect)), (exit) => {
      if (Exit.isSuccess(exit)) {
        this.watch.log(`${text}: ok`)
        if (isGone) this.watch.endedWithoutDisk(text, "ok", text.startsWith("set "))
        onSuccess(exit.value)
        return
      }
      const end = endOf(exit.cause)
      this.watch.log(`${text}: ${end}`)
      if (refusals.has(end)) change?.refuse()
      // Who is interrupted while waiting does not take the change back: it may come later.
      else if (end === "interrupted" && change !== undefined) this.model.late.push(change)
      else change?.fail()
      if (end.startsWith("died") || end === "Corrupted") this.watch.violated(`${text} ended with ${end}`)
      else if (faulty.has(end) && !this.watch.hasFaults) {
        this.watch.violated(`${text} ended with ${end}, and nothing was made to fail`)
      }
    })
  }

  /** -1 when it is nothing that was set. */
  private stampOf(value: Uint8Array | undefined): number {
    if (value === undefined) return absent
    if (value.length < 4) return -1
    const stamp = new DataView(value.buffer, value.byteOffset).getUint32(0)
    const length = this.model.lengths.get(stamp)
    const isWhole = length === value.length && value.subarray(4).every((byte) => byte === (stamp & 255))
    return isWhole ? stamp : -1
  }
}

const keyOf = (key: number): string => `key${key}`
