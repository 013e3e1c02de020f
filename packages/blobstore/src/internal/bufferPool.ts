/**
 * DMA memory for I/O on plain `Uint8Array`s: one pool per store, allocated when the first byte-addressed I/O needs it.
 *
 * A lease lasts for device I/O only, and who holds one never waits for another one, so that waiting always ends.
 */
import type { IoError } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import { type Engine, EngineService } from "@effect-spdk/core/Engine"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"

const mostSlotBytes = 256 * 1024
const slots = 16
/** All slots together take no more than the device has, as long as a slot has a page. */
const leastSlotBytes = 4096

export class BufferPool {
  /** The largest lease: whole io units. */
  readonly maxBytes: number
  private readonly engine: Engine
  private readonly scope: Scope.Scope
  private readonly alignment: number
  private readonly making = Semaphore.makeUnsafe(1)
  private pool: DmaBuffer.DmaPool | undefined

  /** The pool goes with the scope. `deviceBytes` is the size of the bdev under the store. */
  constructor(
    engine: Engine,
    scope: Scope.Scope,
    {
      alignmentBytes,
      deviceBytes,
      ioUnitBytes
    }: {
      readonly ioUnitBytes: number
      readonly alignmentBytes: number
      readonly deviceBytes: number
    }
  ) {
    const slotBytes = Math.min(mostSlotBytes, Math.max(leastSlotBytes, 2 ** Math.floor(Math.log2(deviceBytes / slots))))
    this.maxBytes = Math.max(1, Math.floor(slotBytes / ioUnitBytes)) * ioUnitBytes
    this.engine = engine
    this.scope = scope
    this.alignment = Math.max(4096, alignmentBytes)
  }

  /** Runs `use` with a buffer of exactly `lengthBytes`, at most `maxBytes`. Its content is undefined. */
  lease<A>(
    lengthBytes: number,
    use: (buffer: DmaBuffer.DmaBuffer) => Effect.Effect<A, IoError>
  ): Effect.Effect<A, IoError> {
    return Effect.scoped(
      Effect.flatMap(
        Effect.flatMap(this.get, (pool) => pool.take),
        (buffer) => use(lengthBytes === this.maxBytes ? buffer : buffer.slice(0, lengthBytes))
      )
    )
  }

  private readonly get: Effect.Effect<DmaBuffer.DmaPool, IoError> = Effect.suspend(() =>
    this.pool === undefined ? this.making.withPermit(this.make) : Effect.succeed(this.pool)
  )

  private readonly make: Effect.Effect<DmaBuffer.DmaPool, IoError> = Effect.suspend(() => {
    if (this.pool !== undefined) return Effect.succeed(this.pool)
    const { alignment, engine, maxBytes, scope } = this
    return DmaBuffer.pool({ lengthBytes: maxBytes, capacity: slots, alignment }).pipe(
      Effect.provideService(EngineService, engine),
      Scope.provide(scope),
      Effect.uninterruptible,
      Effect.tap((pool) =>
        Effect.sync(() => {
          this.pool = pool
        })
      )
    )
  })
}
