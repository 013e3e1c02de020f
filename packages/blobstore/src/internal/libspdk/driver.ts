/**
 * SPDK's own blobstore, in this process, by way of the libspdk engine.
 */
import type { Bdev } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import {
  type BlobstoreArguments,
  type BlobstoreStart,
  type Engine,
  type EngineBlobstores,
  EngineService
} from "@effect-spdk/core/Engine"
import { Corrupted, invalid, NotSupported, SpdkError, WrongType } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { survey } from "../check/survey.ts"
import type { DriverFactory, DriverInitOptions, DriverLoadOptions, StoreDriver } from "../driver.ts"
import type { Damage } from "../format/damage.ts"
import { decodeSuperBlock, type SuperBlock } from "../format/superBlock.ts"
import { sharedFlush } from "../sharedFlush.ts"
import { flag, storeClearMethods } from "./encoding.ts"
import { errno, errorOf, type Meaning } from "./errors.ts"
import { readiness, recoverLeftovers } from "./leftovers.ts"
import { LibspdkStore } from "./store.ts"
import { walk } from "./walk.ts"

const superBlockBytes = 4096

interface Libspdk {
  readonly engine: Engine
  readonly blobstores: EngineBlobstores
}

const libspdk = (operation: string, bdev: Bdev): Effect.Effect<Libspdk, SpdkError, EngineService> =>
  Effect.flatMap(EngineService, (engine) => {
    const { blobstores } = engine
    if (blobstores !== undefined) return Effect.succeed({ engine, blobstores })
    const detail = `the engine "${engine.kind}" does not have SPDK's blobstore: use the portable driver`
    return Effect.fail(new SpdkError({ reason: new NotSupported({ operation, resource: bdev.name, detail }) }))
  })

const storeOn = (
  { blobstores, engine }: Libspdk,
  bdev: Bdev,
  call: BlobstoreStart,
  args: BlobstoreArguments,
  onProgress: DriverLoadOptions["onProgress"],
  explain: (status: number) => Effect.Effect<never, SpdkError>
): Effect.Effect<StoreDriver, SpdkError> =>
  Effect.uninterruptible(
    Effect.flatMap(
      blobstores.open(call, bdev.name, args, onProgress && ((done) => onProgress(done, undefined))),
      ({ status, store }) => {
        if (status !== 0) return explain(status)
        const flush = bdev.supports("flush") ? sharedFlush(Effect.suspend(() => bdev.flush())) : Effect.void
        const context = { engine, blobstores, handle: store, flush }
        // What SPDK has written so far is on the device before anybody relies on it.
        return Effect.as(
          Effect.onError(flush, () => blobstores.call(store, "unload")),
          new LibspdkStore(context)
        )
      }
    )
  )

const init = Effect.fnUntraced(function* (bdev: Bdev, options: DriverInitOptions) {
  const operation = "Blobstore.init"
  const found = yield* libspdk(operation, bdev)
  const args: BlobstoreArguments = {
    numbers: [
      options.clusterSizeBytes,
      options.metadataPages ?? 0,
      storeClearMethods[options.clearMethod],
      flag(false),
      flag(options.zeroFreed === true)
    ],
    texts: [bdev.name, options.type]
  }
  return yield* storeOn(found, bdev, "init", args, undefined, (status) => {
    const rule = `is not whole metadata pages, or SPDK does not accept blocks of ${bdev.blockSize} bytes`
    return Effect.fail(
      errorOf(status, operation, bdev.name, { field: "clusterSizeBytes", rule, detail: initDetail(status) })
    )
  })
})

const initDetail = (status: number): string => {
  switch (status) {
    case errno.ENOSPC:
      return "the bdev is smaller than one cluster"
    case errno.ENOMEM:
      return "the bdev has no clusters left beside the metadata: use fewer metadata pages or larger clusters"
    case errno.EBUSY:
      return "SPDK has a blobstore loaded on this bdev"
    default:
      return "SPDK could not initialise a blobstore on this bdev"
  }
}

const load = Effect.fnUntraced(function* (bdev: Bdev, options: DriverLoadOptions) {
  const operation = "Blobstore.load"
  const found = yield* libspdk(operation, bdev)
  const decoded = yield* readSuperBlock(found.engine, bdev)
  // SPDK takes sizes and places in it on trust.
  if (Result.isFailure(decoded)) return yield* Effect.fail(corrupted(operation, bdev.name, decoded.failure))
  // That the type is another one SPDK says by itself.
  if (fits(decoded.success, options)) yield* prepare(found.blobstores, bdev, decoded.success, options, operation)
  const call = options.grow ? "loadAndGrow" : "load"
  const args: BlobstoreArguments = {
    numbers: [0, 0, 0, flag(options.forceRecover), flag(options.zeroFreed === true)],
    texts: [bdev.name, options.type]
  }
  return yield* storeOn(found, bdev, call, args, options.onProgress, (status) =>
    status === errno.EILSEQ || status === errno.ENXIO
      ? explainLoad(found.engine, bdev, status, options, operation)
      : Effect.fail(
          status === errno.EINVAL
            ? invalid(operation, "bdev", `has content that SPDK refuses to load (blocks of ${bdev.blockSize} bytes)`)
            : errorOf(status, operation, bdev.name, whyNot(status))
        )
  )
})

/** Leaves a store that SPDK's load comes back from, or fails. */
const prepare = Effect.fnUntraced(function* (
  blobstores: EngineBlobstores,
  bdev: Bdev,
  superBlock: SuperBlock,
  options: DriverLoadOptions,
  operation: string
) {
  const recovers = !superBlock.clean || superBlock.usedBlobIdMaskLength === 0 || options.forceRecover
  const { damage, mentionsLeftovers } = yield* walk(bdev, superBlock, recovers)
  if (damage === undefined && !mentionsLeftovers) return
  // The metadata of a store that is loaded may have been read while it was written.
  const status = yield* readiness(blobstores, bdev, superBlock)
  if (status !== errno.ENXIO) return yield* Effect.fail(errorOf(status, operation, bdev.name, whyNot(status)))
  if (damage !== undefined) return yield* Effect.fail(corrupted(operation, bdev.name, damage))
  yield* recoverLeftovers(bdev, options)
})

const whyNot = (status: number): Meaning =>
  status === errno.EBUSY ? { detail: "SPDK has a blobstore loaded on this bdev" } : {}

const corrupted = (operation: string, resource: string, { rule, where }: Damage): SpdkError =>
  new SpdkError({ reason: new Corrupted({ operation, resource, where, rule }) })

const fits = (superBlock: SuperBlock, { type }: DriverLoadOptions): boolean => type === "" || type === superBlock.type

/** SPDK says that the super block is wrong, and not how. */
const explainLoad = (engine: Engine, bdev: Bdev, status: number, { type }: DriverLoadOptions, operation: string) =>
  Effect.flatMap(readSuperBlock(engine, bdev), (decoded) => {
    const resource = bdev.name
    if (status === errno.ENXIO) {
      const found = Result.isSuccess(decoded) ? decoded.success.type : undefined
      return Effect.fail<SpdkError>(
        new SpdkError({ reason: new WrongType({ operation, resource, expected: type, found }) })
      )
    }
    if (Result.isFailure(decoded)) return Effect.fail(corrupted(operation, resource, decoded.failure))
    return Effect.flatMap(firstDamage(bdev, decoded.success), (damage) =>
      Effect.fail(
        corrupted(operation, resource, damage ?? { where: "metadata", rule: "was not written by SPDK, or is damaged" })
      )
    )
  })

/** What a check finds first. */
const firstDamage = (bdev: Bdev, superBlock: SuperBlock): Effect.Effect<Damage | undefined, SpdkError> =>
  Effect.map(survey(bdev, superBlock), ({ findings }) => {
    const found = findings.all.find(({ severity }) => severity === "error")
    return found && { where: "metadata", rule: `was not written by SPDK, or is damaged: ${found.message}` }
  })

/** Into memory of its own: what `readBytes` takes stays with the bdev. */
const readSuperBlock = (engine: Engine, bdev: Bdev): Effect.Effect<ReturnType<typeof decodeSuperBlock>, SpdkError> => {
  const lengthBytes = Math.ceil(superBlockBytes / bdev.blockSize) * bdev.blockSize
  const alignment = Math.max(superBlockBytes, bdev.info.bufferAlignmentBytes)
  const wanted = Math.min(lengthBytes, bdev.sizeBytes)
  // An empty device has no super block, and no buffer has 0 bytes.
  if (wanted === 0) return Effect.succeed(decodeSuperBlock(new Uint8Array(0), 0))
  return DmaBuffer.make(wanted, { alignment }).pipe(
    Effect.flatMap((buffer) =>
      Effect.map(bdev.read(0, buffer), () => decodeSuperBlock(buffer.bytes.slice(0, superBlockBytes), bdev.sizeBytes))
    ),
    Effect.scoped,
    Effect.provideService(EngineService, engine)
  )
}

export const libspdkDriver: DriverFactory = { kind: "libspdk", init, load }
