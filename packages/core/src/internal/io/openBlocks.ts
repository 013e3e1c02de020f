/**
 * I/O in blocks to something that an engine opened and that is no bdev of its own: a blob. The same path as a bdev's, with
 * channels per thread, batches and interruption, under another name.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { BdevIo } from "../../BdevIo.ts"
import { bouncePoolOf } from "../memory/bouncePool.ts"
import { BdevIoImpl, explicitChannel } from "./bdevHandle.ts"
import type { Descriptor, DescriptorEvent, Engine } from "../engine/engine.ts"
import type { IoError } from "./ioCompletion.ts"
import { ioOperations, OpenTarget } from "./openTarget.ts"

export interface OpenBlocksOptions<E, E2> {
  readonly engine: Engine
  /** `onEvent` may run before this has ended. What it fails with, `openBlocks` does. */
  readonly open: (onEvent: (event: DescriptorEvent) => void) => Effect.Effect<Descriptor, E>
  /** Gives the descriptor back. Its channels are closed already. */
  readonly close: (descriptor: Descriptor) => Effect.Effect<void, E2>
  /** Of errors: "Blob" gives "Blob.read". */
  readonly operation: string
  /** Of error messages: "runs past the end of the blob". */
  readonly noun: string
}

/** What was opened. `blockSize` is the unit of offsets and lengths; all of them are in bytes, in whole units. */
export interface OpenBlocks<E2> {
  readonly descriptor: Descriptor
  /** By the channel of the fiber's SpdkThread. */
  readonly io: BdevIo
  /** By a channel of one's own on the fiber's SpdkThread. */
  readonly channel: Effect.Effect<BdevIo, IoError, Scope.Scope>
  readonly isRemoved: () => boolean
  readonly numBlocks: () => number
  /** After a resize: what lies past the end is refused from here on. */
  readonly setNumBlocks: (numBlocks: number) => void
  readonly setWritable: (writable: boolean) => void
  /** Refuses new I/O, waits for what is in flight, closes channels and descriptor. Once: later runs await the first one. */
  readonly close: Effect.Effect<void, E2>
}

// One object per kind and not per open: I/O reads the names from it.
const operationsOf = new Map<string, ReturnType<typeof ioOperations>>()

const operationsNamed = (of: string): ReturnType<typeof ioOperations> => {
  const known = operationsOf.get(of)
  if (known !== undefined) return known
  const made = ioOperations(of)
  operationsOf.set(of, made)
  return made
}

/** Opens, and leaves nothing open when that fails. Whoever has opened closes: there is no scope. */
export const openBlocks = <E, E2>(options: OpenBlocksOptions<E, E2>): Effect.Effect<OpenBlocks<E2>, E> =>
  Effect.map(openDescriptor(options), ({ blocks, close }) => ({
    descriptor: blocks.descriptor,
    io: new BdevIoImpl({ bdev: blocks, channel: undefined }),
    channel: explicitChannel(blocks),
    isRemoved: () => blocks.removed,
    numBlocks: () => blocks.numBlocks,
    setNumBlocks: (numBlocks) => {
      blocks.numBlocks = numBlocks
    },
    setWritable: (writable) => blocks.setWritable(writable),
    close
  }))

/** As `openBlocks`, for those who build handles of their own over it. */
export const openDescriptor = <E, E2>(
  options: OpenBlocksOptions<E, E2>
): Effect.Effect<{ readonly blocks: OpenTarget; readonly close: Effect.Effect<void, E2> }, E> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const bounce = yield* Scope.provide(bouncePoolOf(options.engine), scope)
      const early: Array<DescriptorEvent> = []
      let onEvent = (event: DescriptorEvent): void => {
        early.push(event)
      }
      const descriptor = yield* Effect.onError(
        options.open((event) => onEvent(event)),
        () => Scope.close(scope, Exit.void)
      )
      let closed: Exit.Exit<void, E2> = Exit.void
      const blocks = new OpenTarget(options.engine, descriptor, bounce, {
        noun: options.noun,
        operations: operationsNamed(options.operation),
        close: (opened) =>
          Effect.map(Effect.exit(options.close(opened)), (exit) => {
            closed = exit
          })
      })
      onEvent = (event) => blocks.onEvent(event)
      early.forEach(onEvent)
      const ended = yield* Deferred.make<void, E2>()
      let closing = false
      // Not by `Effect.cached`, which forgets the result of a run that was interrupted.
      const close = Effect.suspend(() => {
        if (closing) return Deferred.await(ended)
        closing = true
        return blocks.close().pipe(
          Effect.andThen(Scope.close(scope, Exit.void)),
          Effect.andThen(Effect.suspend(() => closed)),
          Effect.onExit((exit) => Deferred.done(ended, exit))
        )
      }).pipe(Effect.uninterruptible)
      return { blocks, close }
    })
  )
