/**
 * Documents over HTTP, kept in a blobstore in a file: `node main.js [PORT] [FILE]`, then
 * `curl -T letter.txt localhost:3000/documents/letter` and `curl localhost:3000/documents/letter`.
 *
 * Storage is built before the server and released after the server, so no request finds it closed.
 */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as HttpRouter from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import { createServer } from "node:http"
import { Documents } from "./Documents.ts"
import { Routes } from "./server.ts"

const [port = "3000", path = "documents.img"] = process.argv.slice(2)

const Storage = Documents.layer.pipe(
  Layer.provide(Blobstore.layer({ onEmpty: "init" })),
  Layer.provide(Bdev.layerFile({ path, size: "256 MiB" })),
  Layer.provide(Spdk.layerAuto)
)

// The layer that is provided last is built first and released last.
const Server = HttpRouter.serve(Routes).pipe(
  Layer.provide(NodeHttpServer.layer(() => createServer(), { port: Number(port), host: "127.0.0.1" })),
  Layer.provide(Storage)
)

NodeRuntime.runMain(Layer.launch(Server))
