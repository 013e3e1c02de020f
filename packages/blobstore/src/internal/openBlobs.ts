/**
 * The open blobs of a store. A driver opens each once; here its users are counted. What opens, closes and deletes one blob
 * takes turns.
 */
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import { Busy, SpdkError as SpdkErrorClass } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { BlobId, ClearMethod, OpenBlob, StoreDriver } from "./driver.ts"
import { EdgeLocks } from "./edgeLocks.ts"

/** What all handles of one blob share. */
export class SharedBlob {
  readonly open: OpenBlob
  readonly clearMethod: ClearMethod
  readonly edges: EdgeLocks = new EdgeLocks()
  /** Called when the blob closes, each for one handle that is open still. */
  readonly users = new Set<() => void>()

  /** Kept, because I/O on plain memory asks for it each time. */
  clusters: number

  private readonly sizing: Semaphore.Semaphore

  constructor(open: OpenBlob, clearMethod: ClearMethod, sizing: Semaphore.Semaphore, clusters: number) {
    this.open = open
    this.clearMethod = clearMethod
    this.sizing = sizing
    this.clusters = clusters
  }

  /**
   * Smaller is synced at once: until then SPDK keeps what was cut off, and a second cut counts clusters wrong.
   */
  resize(clusters: number): Effect.Effect<void, SpdkError> {
    const resize = Effect.flatMap(this.open.info, (before) => {
      // A failure may leave the new size in memory.
      const resized = Effect.ensuring(this.open.resize(clusters), Effect.ignore(this.look))
      return clusters < before.clusters ? Effect.andThen(resized, this.open.sync) : resized
    })
    return this.sizing.withPermit(resize)
  }

  private get look(): Effect.Effect<void, SpdkError> {
    return Effect.map(this.open.info, ({ clusters }) => {
      this.clusters = clusters
    })
  }
}

interface Entry {
  readonly turn: Semaphore.Semaphore
  /** Held by what changes the size, and by what must not see it change. */
  readonly sizing: Semaphore.Semaphore
  /** Who has the turn and who waits for it. */
  claims: number
  shared: SharedBlob | undefined
}

export class OpenBlobs {
  private readonly driver: StoreDriver
  private readonly entries = new Map<BlobId, Entry>()

  constructor(driver: StoreDriver) {
    this.driver = driver
  }

  get count(): number {
    let open = 0
    for (const entry of this.entries.values()) if (entry.shared !== undefined) open++
    return open
  }

  isOpen(id: BlobId): boolean {
    return this.entries.get(id)?.shared !== undefined
  }

  /** Runs while nobody resizes the blob. */
  whileSized<A>(id: BlobId, use: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return this.claim(id, (entry) => entry.sizing.withPermit(use))
  }

  /**
   * Before a snapshot: SPDK takes for granted that the device has what memory has. After an unsynced change of size it writes
   * past the end of its memory, or makes a snapshot that has lost clusters after the next load. A close that is under way
   * syncs as well, and is waited for.
   */
  syncIfOpen(id: BlobId): Effect.Effect<void, SpdkError> {
    return this.inTurn(id, ({ shared }) => shared?.open.sync ?? Effect.void)
  }

  /** One more user of the blob, which is opened for the first one. `detach` is called if the store closes before `release`. */
  acquire(
    id: BlobId,
    clearMethod: ClearMethod | undefined,
    detach: () => void,
    resource: string
  ): Effect.Effect<SharedBlob, SpdkError> {
    return this.inTurn(id, (entry) => {
      const { shared } = entry
      if (shared === undefined) {
        const method = clearMethod ?? "default"
        return Effect.flatMap(this.driver.open(id, { clearMethod: method }), (open) => {
          const known = Effect.map(open.info, ({ clusters }) => {
            entry.shared = new SharedBlob(open, method, entry.sizing, clusters)
            entry.shared.users.add(detach)
            return entry.shared
          })
          return Effect.onError(known, () => Effect.ignore(open.close))
        })
      }
      if (clearMethod !== undefined && clearMethod !== shared.clearMethod) {
        const detail = `it is open with the clear method ${shared.clearMethod}`
        return Effect.fail(new SpdkErrorClass({ reason: new Busy({ operation: "Blobstore.open", resource, detail }) }))
      }
      shared.users.add(detach)
      return Effect.succeed(shared)
    })
  }

  /** The last user closes the blob. */
  release(id: BlobId, shared: SharedBlob, detach: () => void): Effect.Effect<void, SpdkError> {
    return this.inTurn(id, (entry) => {
      shared.users.delete(detach)
      return entry.shared === shared && shared.users.size === 0 ? close(entry, shared) : Effect.void
    })
  }

  /** How many clusters the blob has. */
  clustersOf(id: BlobId): Effect.Effect<number, SpdkError> {
    return this.inTurn(id, ({ shared }) =>
      shared === undefined
        ? Effect.acquireUseRelease(
            this.driver.open(id, { clearMethod: "default" }),
            (open) => Effect.map(open.info, ({ clusters }) => clusters),
            (open) => open.close
          )
        : Effect.succeed(shared.clusters)
    )
  }

  /** Runs while nobody opens or closes this blob. */
  exclusively<A>(id: BlobId, use: Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return this.inTurn(id, () => use)
  }

  /** Whoever uses them. Closes all, and then fails as the first that did not close. */
  readonly closeAll: Effect.Effect<void, SpdkError> = Effect.suspend(() =>
    Effect.validate(
      [...this.entries.keys()],
      (id) => this.inTurn(id, (entry) => (entry.shared === undefined ? Effect.void : close(entry, entry.shared))),
      { concurrency: "unbounded", discard: true }
    ).pipe(Effect.mapError(([first]) => first))
  )

  private inTurn<A>(id: BlobId, use: (entry: Entry) => Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return this.claim(id, (entry) => entry.turn.withPermit(Effect.suspend(() => use(entry))))
  }

  private claim<A>(id: BlobId, use: (entry: Entry) => Effect.Effect<A, SpdkError>): Effect.Effect<A, SpdkError> {
    return Effect.uninterruptibleMask((restore) => {
      const entry = this.entries.get(id) ?? newEntry()
      this.entries.set(id, entry)
      entry.claims++
      return Effect.onExit(restore(Effect.suspend(() => use(entry))), () => {
        if (--entry.claims === 0 && entry.shared === undefined) this.entries.delete(id)
        return Effect.void
      })
    })
  }
}

const newEntry = (): Entry => ({
  turn: Semaphore.makeUnsafe(1),
  sizing: Semaphore.makeUnsafe(1),
  claims: 0,
  shared: undefined
})

/** Whatever closing says, nobody uses it any more. */
const close = (entry: Entry, shared: SharedBlob): Effect.Effect<void, SpdkError> =>
  Effect.suspend(() => {
    for (const detach of shared.users) detach()
    shared.users.clear()
    return Effect.ensuring(
      shared.open.close,
      Effect.sync(() => {
        entry.shared = undefined
      })
    )
  })
