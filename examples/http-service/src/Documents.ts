/**
 * Documents by name, as a service: what the rest of a program knows of its storage. Errors are its own, and there are two.
 */
import * as BlobKeyValueStore from "@effect-spdk/blobstore/BlobKeyValueStore"
import { isSpdkError } from "@effect-spdk/core/SpdkError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"

/** There is no room for a document. Nothing has changed. */
export class Full extends Schema.TaggedError<Full>()("Full", { name: Schema.String }) {}

/** The storage does not answer as it should. A `put` that failed so is there whole, or not at all. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  name: Schema.String,
  cause: Schema.Defect()
}) {}

export class Documents extends Context.Service<
  Documents,
  {
    /** Survives a power cut once it has returned. */
    readonly put: (name: string, bytes: Uint8Array) => Effect.Effect<void, Full | Unavailable>
    /** Undefined when there is none. */
    readonly get: (name: string) => Effect.Effect<Uint8Array | undefined, Unavailable>
  }
>()("http-service/Documents") {
  /** On the key-value store of a blobstore, which is opened once and kept: requests open nothing. */
  static readonly layer = Layer.effect(
    Documents,
    Effect.gen(function* () {
      const store = yield* KeyValueStore.KeyValueStore
      return Documents.of({
        put: (name, bytes) =>
          store
            .set(name, bytes)
            .pipe(
              Effect.mapError(({ cause }) =>
                isSpdkError(cause) && cause.reason._tag === "NoSpace"
                  ? new Full({ name })
                  : new Unavailable({ name, cause })
              )
            ),
        get: (name) => store.getUint8Array(name).pipe(Effect.mapError(({ cause }) => new Unavailable({ name, cause })))
      })
    })
  ).pipe(Layer.provide(BlobKeyValueStore.layer({ name: "documents" })))
}
