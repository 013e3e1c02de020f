import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { portableDriver } from "../packages/blobstore/dist/internal/portable/driver.js"
const N = Number(process.argv[2] ?? 20000)
const program = Effect.gen(function*() {
  const b = yield* Bdev.Bdev
  let t = performance.now()
  const lap = (what) => { console.log(what, Math.round(performance.now() - t), "ms"); t = performance.now() }
  const store = yield* portableDriver.init(b, { clusterSizeBytes: 4096, metadataPages: N * 2 + 10, type: "", clearMethod: "none" })
  lap("init")
  for (let i = 0; i < N; i++) yield* store.create({ clusters: 1, thin: false, clearMethod: "default", extentTable: true, xattrs: new Map([["name", new TextEncoder().encode("blob" + i)]]), externalSnapshot: undefined })
  lap("create " + N)
  yield* store.unload
  lap("unload")
  const opts = { type: "", forceRecover: false, grow: false, onProgress: undefined }
  for (let i = 0; i < 3; i++) { const s = yield* portableDriver.load(b, opts); lap("load"); yield* s.unload; lap("unload") }
  const s = yield* portableDriver.load(b, { ...opts, forceRecover: true }); lap("recover")
  console.log(s.info())
})
await Effect.runPromise(program.pipe(Effect.provide(Bdev.layerMalloc({ size: N * 3 * 4096 + 256 * 4096, blockSize: 512 }).pipe(Layer.provideMerge(Spdk.layerEmbedded({ memoryMiB: 4096 }))))))
