/**
 * A device that keeps I/O until it is told to let go: SPDK's error bdev with its `pending` injection. An abort does
 * not reach what it holds, so that memory stays with the device after an interruption, as with a real device that
 * is slow to answer.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Rpc from "@effect-spdk/core/Rpc"
import * as Spdk from "@effect-spdk/core/Spdk"
import type * as SpdkThread from "@effect-spdk/core/SpdkThread"
import * as Effect from "effect/Effect"
import { blockSize, fresh, skipTest, until } from "./harness.ts"
import { injectsStatus } from "./spdkVersion.ts"

/** Requests of this program that have not been answered. */
export const inFlight = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) =>
  Effect.map(spdk.usage, (usage) => usage.requestsInFlight)
)

/** An error bdev over a malloc bdev, opened for writing, and the means to inject errors into it. */
export const errorBdev = (numBlocks = 4096) =>
  Effect.flatMap(Bdev.createMalloc({ name: fresh("base"), blockSize, numBlocks }), errorBdevOn)

export const errorBdevOn = (base: string) =>
  Effect.gen(function* () {
    const { inject: injectNow, name } = yield* Bdev.createError({ base })
    const inject = (options: Bdev.Injection) =>
      Effect.andThen(options.errorType === "nvme_failure" ? injectsStatus : Effect.void, injectNow(options))
    const bdev = yield* Bdev.open(name, { write: true })
    return { name, base, bdev, inject, letGo: letGoOf(name) }
  })

/** What SPDK before 26.05 has no method for. */
const canResume = Effect.flatMap(Rpc.RpcClient, (client) =>
  Effect.map(
    client.call("rpc_get_methods"),
    (methods) => Array.isArray(methods) && methods.includes("bdev_error_resume_pending")
  )
)

/** Skips a test in which what an error bdev has held is to end well. */
export const needsResume = Effect.flatMap(canResume, (can) =>
  can ? Effect.void : skipTest("the error bdev of this SPDK cannot let I/O go on (no bdev_error_resume_pending)")
)

/** Lets go of what the error bdev holds. Where SPDK cannot do that, a reset ends it with an error. */
export const letGoOf = (name: string) =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    if (yield* canResume) return void (yield* client.call("bdev_error_resume_pending", { name }))
    yield* client.call("bdev_error_inject_error", { name, io_type: "clear", error_type: "failure" })
    yield* Effect.scoped(Effect.flatMap(Bdev.open(name), (bdev) => bdev.reset))
  })

/**
 * Makes a delay bdev slow, after SPDK's other modules have read it: those that look for their own data on every new bdev
 * would keep it open for as long as their reads take.
 */
export const setLatency = (name: string, latencyMicros: number) =>
  Effect.gen(function* () {
    const client = yield* Rpc.RpcClient
    yield* client.call("bdev_wait_for_examine")
    for (const latency_type of ["avg_read", "p99_read", "avg_write", "p99_write"]) {
      yield* client.call("bdev_delay_update_latency", {
        delay_bdev_name: name,
        latency_type,
        latency_us: latencyMicros
      })
    }
  })

/**
 * What is in flight has come as far as its device: a message follows the requests through the main thread's queue, and RPC
 * calls give the stack above the device its turns.
 */
export const arrived = Effect.gen(function* () {
  const spdk = yield* Spdk.Spdk
  yield* spdk.mainThread.call(Effect.void)
  yield* Effect.forEach(Array.from({ length: 5 }), () => spdk.rpc.call("spdk_get_version"), { discard: true })
})

/** SPDK's modules that look for their own data on every new bdev have read what they wanted: statistics are the test's alone. */
export const examined = Effect.flatMap(Rpc.RpcClient, (client) => client.call("bdev_wait_for_examine"))

/** Holds every read (or I/O of the given type) until `letGo`, which also ends the holding. */
export const heldReads = (ioType: "read" | "write" | "flush" | "unmap" | "all" = "read") =>
  Effect.gen(function* () {
    yield* needsResume
    const spdk = yield* Spdk.Spdk
    const device = yield* errorBdev()
    yield* device.inject({ ioType, errorType: "pending", count: 1_000_000 })
    // Whatever a test forgot is let go before the bdev closes, so that its failure is not a hang.
    yield* Effect.addFinalizer(() => Effect.ignore(device.letGo))
    const roundTrips = (count: number) =>
      Effect.forEach(Array.from({ length: count }), () => spdk.rpc.call("spdk_get_version"), { discard: true })
    const inFlightBefore = (yield* spdk.usage).requestsInFlight
    return {
      ...device,
      /**
       * Waits until exactly so many requests of ours are in flight and the engine has taken from the thread's queue what
       * fits: a message follows the requests. With more than a queue holds no message passes, and RPC calls must do.
       */
      holds: (count: number, thread: SpdkThread.SpdkThread = spdk.mainThread) =>
        until(
          `${count} requests are in flight`,
          Effect.map(spdk.usage, (usage) => usage.requestsInFlight - inFlightBefore === count)
        ).pipe(Effect.andThen(count <= 1024 ? thread.call(Effect.void) : roundTrips(20))),
      /** Lets the engine work: a round trip passes through its threads and Node's event loop. */
      roundTrips
    }
  })
