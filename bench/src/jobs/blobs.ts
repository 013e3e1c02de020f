/** Blobstores for the jobs: a driver goes with its engine. */
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Effect from "effect/Effect"
import type { BdevSpec, Engine } from "../Job.ts"
import { createBdev } from "./device.ts"

export const driverOf = (engine: Engine): Blobstore.DriverKind => (engine === "libspdk" ? "libspdk" : "portable")

const opened = (bdev: BdevSpec) => Effect.flatMap(createBdev(bdev), (name) => Bdev.open(name, { write: true }))

/** A new blobstore on a new bdev. */
export const initStore = (engine: Engine, bdev: BdevSpec, options: Blobstore.InitOptions) =>
  Effect.flatMap(opened(bdev), (device) =>
    Effect.provideService(Blobstore.init({ driver: driverOf(engine), ...options }), Bdev.Bdev, device)
  )

/** The blobstore that is on a bdev. */
export const loadStore = (engine: Engine, bdev: Bdev.Bdev, options: Blobstore.LoadOptions = {}) =>
  Effect.provideService(Blobstore.load({ driver: driverOf(engine), ...options }), Bdev.Bdev, bdev)
