/** A bdev that loses power: from the N-th change on nothing reaches the device any more, flushes included. Reads work. */
import type * as Bdev from "@effect-spdk/core/Bdev"
import { IoFailed, SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"

const changing: ReadonlySet<PropertyKey> = new Set([
  "write",
  "writev",
  "writeBytes",
  "writeZeroes",
  "writeBatch",
  "unmap",
  "flush"
])

export interface Power {
  /** Changes so far, the lost ones too. */
  changes: number
  /** The first change that is lost, from 1. */
  lostAt: number
}

type Call = (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown, unknown>

export const losingPower = (bdev: Bdev.Bdev, power: Power): Bdev.Bdev =>
  new Proxy(bdev, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== "function") return value
      const call: Call = value.bind(target)
      if (!changing.has(name)) return call
      return (...args: ReadonlyArray<unknown>) =>
        Effect.suspend(() => {
          power.changes++
          if (power.changes < power.lostAt) return call(...args)
          const reason = new IoFailed({ operation: `Bdev.${String(name)}`, detail: "power is lost" })
          return Effect.fail(new SpdkError({ reason }))
        })
    }
  })
