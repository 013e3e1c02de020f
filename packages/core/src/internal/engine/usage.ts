/**
 * What an engine holds and how busy its reactors are, as Effect metrics. They are read from the engine's own counters
 * when somebody polls; nothing here runs per I/O.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { Reactor } from "../../SpdkThread.ts"
import type { EngineUsage, LoadedInTypeScript } from "./engine.ts"

const usage: { readonly [K in keyof EngineUsage]: Metric.Gauge<number> } = {
  threads: Metric.gauge("spdk_threads", { description: "SPDK threads that this program holds" }),
  descriptors: Metric.gauge("spdk_descriptors", { description: "Open bdevs" }),
  channels: Metric.gauge("spdk_channels", { description: "Open I/O channels" }),
  pollers: Metric.gauge("spdk_pollers", { description: "Registered pollers" }),
  blobstores: Metric.gauge("spdk_blobstores", { description: "Blobstores that are loaded, by either driver" }),
  blobs: Metric.gauge("spdk_blobs", { description: "Blobs that are open" }),
  nvmeControllers: Metric.gauge("spdk_nvme_controllers", { description: "NVMe controllers that are connected" }),
  slabs: Metric.gauge("spdk_slabs", { description: "DMA allocations" }),
  dmaBytes: Metric.gauge("spdk_dma_bytes", { description: "Bytes in DMA allocations" }),
  requestsInFlight: Metric.gauge("spdk_requests_in_flight", { description: "Requests without a completion" })
}

/** Every gauge. The two of a reactor carry the attribute `core`. */
export const metrics = {
  ...usage,
  reactorBusyMillis: Metric.gauge("spdk_reactor_busy_millis", { description: "Time that a reactor spent on work" }),
  reactorIdleMillis: Metric.gauge("spdk_reactor_idle_millis", { description: "Time that a reactor found no work" })
} as const

export const withLoaded = (held: EngineUsage, loaded: ReadonlySet<LoadedInTypeScript>): EngineUsage => {
  let { blobs } = held
  for (const { openBlobs } of loaded) blobs += openBlobs
  return { ...held, blobstores: held.blobstores + loaded.size, blobs }
}

export const updateUsage = (held: EngineUsage): Effect.Effect<void> =>
  Effect.forEach(
    Object.keys(usage) as ReadonlyArray<keyof EngineUsage>,
    (name) => Metric.update(usage[name], held[name]),
    { discard: true }
  )

export const updateReactors = (reactors: ReadonlyArray<Reactor>): Effect.Effect<void> =>
  Effect.forEach(
    reactors,
    ({ busyMillis, core, idleMillis }) => {
      const attributes = { core: `${core}` }
      return Effect.andThen(
        Metric.update(Metric.withAttributes(metrics.reactorBusyMillis, attributes), busyMillis),
        Metric.update(Metric.withAttributes(metrics.reactorIdleMillis, attributes), idleMillis)
      )
    },
    { discard: true }
  )
