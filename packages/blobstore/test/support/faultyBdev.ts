/**
 * A bdev whose writes fail where a test wants them to: everything that changes the device is counted, and from a given count on,
 * or at that count only, it fails without having been done, as when power is lost. Reads always work. With a cache, what was
 * not flushed when power is lost is on the device or not, request by request.
 */
import type { Bdev, IoError } from "@effect-spdk/core/Bdev"
import { isDmaBuffer } from "@effect-spdk/core/DmaBuffer"
import { IoFailed, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"

export interface Faults {
  /** Changes so far, the failed ones too. */
  changes: number
  /** The first change that fails, from 1; undefined: none does. */
  failAt: number | undefined
  /** Only that one fails, and not all after it. */
  once: boolean
  /** So many bytes of the first one that fails are written. */
  tornBytes: number
  /**
   * Loses power: the device has what it had at the last flush, and of the requests since those that `keeps` chooses.
   * Only with a cache.
   */
  readonly powerCut: (keeps: () => boolean) => Effect.Effect<void, IoError>
}

interface Cached {
  readonly offsetBytes: number
  readonly bytes: Uint8Array
}

const changing: ReadonlySet<PropertyKey> = new Set([
  "write",
  "writev",
  "writeBytes",
  "writeZeroes",
  "unmap",
  "writeBatch"
])

const failure = (operation: string): IoError =>
  new SpdkError({ reason: new IoFailed({ operation, detail: "injected", errno: "EIO", errnoCode: 5 }) })

type Call = (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown, IoError>

const lengthOf = (argument: unknown): number => {
  if (typeof argument === "number") return argument
  if (Array.isArray(argument)) return argument.reduce((sum: number, one) => sum + lengthOf(one), 0)
  return argument !== null && typeof argument === "object" && "byteLength" in argument ? Number(argument.byteLength) : 0
}

/** The same request, shorter. */
const cutOff = ([offsetBytes, what]: ReadonlyArray<unknown>, bytes: number): ReadonlyArray<unknown> => {
  const length = Math.min(bytes, lengthOf(what))
  if (what instanceof Uint8Array) return [offsetBytes, what.subarray(0, length)]
  return [offsetBytes, isDmaBuffer(what) ? what.slice(0, length) : length]
}

/** Flushes fail once power is lost. They are counted where there is a cache, because without one they change nothing. */
export const faultyBdev = (
  bdev: Bdev,
  options: { readonly cache?: boolean } = {}
): { readonly bdev: Bdev; readonly faults: Faults } => {
  let durable: Uint8Array | undefined
  let cached: Array<Cached> = []
  const readAll = bdev.readBytes(0, bdev.sizeBytes)
  const faults: Faults = {
    changes: 0,
    failAt: undefined,
    once: false,
    tornBytes: 0,
    powerCut: (keeps) =>
      Effect.suspend(() => {
        if (durable === undefined) return Effect.void
        const image = durable.slice()
        for (const { bytes, offsetBytes } of cached) if (keeps()) image.set(bytes, offsetBytes)
        return bdev.writeBytes(0, image)
      })
  }
  const isLost = () => faults.failAt !== undefined && !faults.once && faults.changes >= faults.failAt
  /** What the request leaves there, whatever it was; `writeBatch` is not among what stores use for their metadata. */
  const remember = Effect.fnUntraced(function* (run: Effect.Effect<unknown, IoError>, args: ReadonlyArray<unknown>) {
    durable ??= yield* readAll
    const result = yield* run
    const [offsetBytes, what] = args
    if (typeof offsetBytes === "number") {
      const bytes = yield* bdev.readBytes(offsetBytes, lengthOf(what))
      // Not before the read: a flush may have put another list in its place.
      cached.push({ offsetBytes, bytes })
    }
    return result
  })
  const step = (operation: string, call: Call, args: ReadonlyArray<unknown>): Effect.Effect<unknown, IoError> =>
    Effect.suspend(() => {
      faults.changes++
      const { changes, failAt, once } = faults
      const fails = failAt !== undefined && (once ? changes === failAt : changes >= failAt)
      if (fails) {
        const torn = changes === failAt && faults.tornBytes > 0 ? call(...cutOff(args, faults.tornBytes)) : Effect.void
        return Effect.andThen(torn, Effect.fail(failure(operation)))
      }
      return options.cache === true ? remember(call(...args), args) : call(...args)
    })
  const flush = (call: Call, args: ReadonlyArray<unknown>): Effect.Effect<unknown, IoError> =>
    Effect.suspend(() => {
      if (options.cache === true) faults.changes++
      if (isLost()) return Effect.fail(failure("flush"))
      if (options.cache !== true) return call(...args)
      // What was sent before the flush, and nothing that comes while it is under way.
      const sent = new Set(cached)
      return Effect.map(call(...args), () => {
        // Of flushes that overlap, the first one to end has done its part already.
        for (const { bytes, offsetBytes } of cached.filter((one) => sent.has(one))) durable?.set(bytes, offsetBytes)
        cached = cached.filter((one) => !sent.has(one))
      })
    })
  const proxy = new Proxy(bdev, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== "function") return value
      const call: Call = value.bind(target)
      if (changing.has(name)) return (...args: ReadonlyArray<unknown>) => step(String(name), call, args)
      return name === "flush" ? (...args: ReadonlyArray<unknown>) => flush(call, args) : call
    }
  })
  return { bdev: proxy, faults }
}
