/** The routes, and the server. Whatever goes wrong with storage has a status of its own. */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import { Documents } from "./Documents.ts"

const name = Effect.map(HttpRouter.params, (params) => params["name"] ?? "")

export const Routes: Layer.Layer<never, never, Documents | HttpRouter.HttpRouter> = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const documents = yield* Documents
    yield* router.add("GET", "/documents/:name", () =>
      Effect.gen(function* () {
        const bytes = yield* documents.get(yield* name)
        return bytes === undefined
          ? HttpServerResponse.empty({ status: 404 })
          : HttpServerResponse.uint8Array(bytes, { contentType: "application/octet-stream" })
      }).pipe(
        Effect.catchTag("Unavailable", (error) =>
          Effect.as(Effect.logError("documents", error), HttpServerResponse.empty({ status: 503 }))
        )
      )
    )
    yield* router.add("PUT", "/documents/:name", (request) =>
      Effect.gen(function* () {
        yield* documents.put(yield* name, new Uint8Array(yield* request.arrayBuffer))
        return HttpServerResponse.empty({ status: 204 })
      }).pipe(
        Effect.catchTags({
          Full: () => Effect.succeed(HttpServerResponse.empty({ status: 507 })),
          HttpServerError: () => Effect.succeed(HttpServerResponse.empty({ status: 400 })),
          Unavailable: (error) =>
            Effect.as(Effect.logError("documents", error), HttpServerResponse.empty({ status: 503 }))
        })
      )
    )
  })
)
