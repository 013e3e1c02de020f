/**
 * SHA-256 of files as they pass. A thread of its own takes its part of the large files, because one thread that hashes,
 * and starts all I/O too, would be what everything waits for. Small files are hashed where they are read, which is
 * cheaper than to hand them over.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { Worker } from "node:worker_threads"
import { DemoError } from "./DemoError.ts"
import type { Answer, Request } from "./hashWorker.ts"

/** Files below this are hashed where they are read: the thread takes some 30 ms to start. */
const largeBytes = 8 * 2 ** 20

/** What goes to the thread at once, and how many of them are under way: who is faster than it waits. */
const pieceBytes = 2 ** 20
const pieces = 8

export interface Hash {
  /** The bytes that come next. They are the caller's again when this returns. */
  readonly update: (bytes: Uint8Array) => Effect.Effect<void, DemoError>
  /** In hex; once, after all bytes. */
  readonly digest: Effect.Effect<string, DemoError>
}

export class Hasher extends Context.Service<
  Hasher,
  {
    /** A hash for so many bytes. What the scope leaves without a digest is forgotten. */
    readonly sha256: (sizeBytes: number) => Effect.Effect<Hash, never, Scope.Scope>
  }
>()("effect-spdk/demo/Hasher") {}

const inline = (): Hash => {
  const hash = createHash("sha256")
  return {
    update: (bytes) => Effect.sync(() => void hash.update(bytes)),
    digest: Effect.sync(() => hash.digest("hex"))
  }
}

/** The thread as this side sees it. */
class HashThread {
  private readonly worker: Worker
  private readonly free: Queue.Queue<ArrayBuffer, DemoError>
  private readonly digests = new Map<number, Deferred.Deferred<string, DemoError>>()
  private hashes = 0
  private failure: DemoError | undefined

  constructor(module: URL, free: Queue.Queue<ArrayBuffer, DemoError>) {
    this.worker = new Worker(module)
    this.free = free
    for (let index = 0; index < pieces; index++) Queue.offerUnsafe(free, new ArrayBuffer(pieceBytes))
    this.worker.on("message", (answer: Answer) => this.answered(answer))
    this.worker.on("error", (error) => this.ended(error.message))
    this.worker.on("exit", (code) => this.ended(`exit code ${code}`))
  }

  /** The thread is never in anything longer than one piece. */
  readonly end: Effect.Effect<void> = Effect.suspend(() =>
    Effect.orDie(
      Effect.timeout(
        Effect.promise(() => this.worker.terminate()),
        "5 seconds"
      )
    )
  )

  readonly start: Effect.Effect<Hash, never, Scope.Scope> = Effect.acquireRelease(
    Effect.sync(() => ++this.hashes),
    (hash) =>
      Effect.sync(() => {
        this.digests.delete(hash)
        this.send({ type: "forget", hash }, [])
      })
  ).pipe(
    Effect.map((hash) => ({
      update: (bytes) => this.update(hash, bytes),
      digest: Effect.suspend(() => this.digest(hash))
    }))
  )

  private update(hash: number, bytes: Uint8Array): Effect.Effect<void, DemoError> {
    return Effect.suspend(() => {
      let offset = 0
      return Effect.whileLoop({
        while: () => offset < bytes.length,
        body: () => Queue.take(this.free),
        step: (memory) => {
          const piece = bytes.subarray(offset, offset + pieceBytes)
          const copy = new Uint8Array(memory, 0, piece.length)
          copy.set(piece)
          offset += piece.length
          this.send({ type: "update", hash, bytes: copy }, [memory])
        }
      })
    })
  }

  private digest(hash: number): Effect.Effect<string, DemoError> {
    if (this.failure !== undefined) return Effect.fail(this.failure)
    const digest = Deferred.makeUnsafe<string, DemoError>()
    this.digests.set(hash, digest)
    this.send({ type: "digest", hash }, [])
    return Deferred.await(digest)
  }

  private send(request: Request, transferred: ReadonlyArray<ArrayBuffer>): void {
    this.worker.postMessage(request, transferred)
  }

  private answered(answer: Answer): void {
    if (answer.type === "free") return void Queue.offerUnsafe(this.free, answer.memory)
    const digest = this.digests.get(answer.hash)
    if (digest !== undefined) Deferred.doneUnsafe(digest, Exit.succeed(answer.hex))
  }

  /** Nothing that waits for the thread waits for ever. */
  private ended(why: string): void {
    this.failure ??= new DemoError({ message: `the thread that hashes has ended: ${why}` })
    const cause = Cause.fail(this.failure)
    Queue.failCauseUnsafe(this.free, cause)
    for (const digest of this.digests.values()) Deferred.doneUnsafe(digest, Exit.failCause(cause))
  }
}

/** `module` is what runs in the thread, which starts with the first large file and ends with the scope. */
export const layerOf = (module: URL): Layer.Layer<Hasher> =>
  Layer.effect(
    Hasher,
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const thread = yield* Effect.cached(
        Effect.acquireRelease(
          Effect.map(Queue.unbounded<ArrayBuffer, DemoError>(), (free) => new HashThread(module, free)),
          ({ end }) => end
        ).pipe(Scope.provide(scope))
      )
      /** Of large files under way. */
      const bytes = { here: 0, there: 0 }
      const counted = (where: keyof typeof bytes, sizeBytes: number) =>
        Effect.acquireRelease(
          Effect.sync(() => void (bytes[where] += sizeBytes)),
          () => Effect.sync(() => void (bytes[where] -= sizeBytes))
        )
      const large = (sizeBytes: number): Effect.Effect<Hash, never, Scope.Scope> =>
        bytes.there <= bytes.here
          ? Effect.andThen(
              counted("there", sizeBytes),
              Effect.flatMap(thread, ({ start }) => start)
            )
          : Effect.map(counted("here", sizeBytes), inline)
      return {
        sha256: (sizeBytes) => Effect.suspend(() => (sizeBytes < largeBytes ? Effect.sync(inline) : large(sizeBytes)))
      }
    })
  )

export const layer: Layer.Layer<Hasher> = layerOf(new URL("./hashWorker.js", import.meta.url))
