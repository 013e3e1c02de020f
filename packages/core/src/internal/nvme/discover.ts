/**
 * What a discovery controller knows, and what is in this machine, as streams of what was found and lost.
 */
import * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { HotplugEvent, DiscoveryEvent } from "../../Nvme.ts"
import type { NvmeController, QueryError } from "../../NvmeController.ts"
import type { DiscoveredSubsystem } from "../../NvmeData.ts"
import { DeviceRemoved, SpdkError } from "../../SpdkError.ts"
import type { EngineNvme, NvmeConnectSettings, NvmeTransportIdFields } from "../engine/nvme.ts"
import * as Outside from "../engine/outside.ts"
import { type ControlError, controlReasons } from "./controllerHandle.ts"
import { formatTransportId } from "./transportId.ts"

const busyMillis = 50

/** What came and what went between two looks, by key; what is in both is as it was. */
const changes = <A, Event>(
  before: ReadonlyMap<string, A>,
  now: ReadonlyMap<string, A>,
  found: (one: A) => Event,
  lost: (one: A) => Event
): ReadonlyArray<Event> => {
  const events: Array<Event> = []
  for (const [key, one] of before) if (!now.has(key)) events.push(lost(one))
  for (const [key, one] of now) if (!before.has(key)) events.push(found(one))
  return events
}

const keyOf = ({ entry }: DiscoveredSubsystem): string =>
  [entry.trtype, entry.adrfam, entry.traddr, entry.trsvcid, entry.subnqn, entry.portId, entry.subtype].join("|")

/**
 * A look at once, one at each notice, and one at each tick of the schedule. Fails when the controller does.
 */
export const discoveries = (
  controller: NvmeController,
  schedule: Schedule.Schedule<unknown> | undefined
): Stream.Stream<DiscoveryEvent, QueryError> => {
  const operation = "Nvme.discover"
  const resource = formatTransportId(controller.transportId)
  const noticed: Stream.Stream<void, QueryError> = controller.events.pipe(
    Stream.mapEffect((event) =>
      event._tag === "Failed" || event._tag === "Removed"
        ? Effect.fail(
            new SpdkError({
              reason: new DeviceRemoved({
                operation,
                resource,
                detail: event._tag === "Failed" ? event.message : undefined
              })
            })
          )
        : Effect.succeed(event._tag)
    ),
    Stream.filter((tag) => tag === "DiscoveryLogChanged"),
    Stream.map(() => undefined)
  )
  const ticks = schedule === undefined ? Stream.never : Stream.map(Stream.fromSchedule(schedule), () => undefined)
  // The first look comes after the subscription to notices, so that no change falls in between.
  const first: Stream.Stream<void> = Stream.make(undefined)
  return Stream.mergeAll([noticed, ticks, first], { concurrency: "unbounded" }).pipe(
    // Several notices while one look runs are one more look.
    Stream.buffer({ capacity: 1, strategy: "sliding" }),
    // It may change while it is read, for as long as somebody changes it.
    Stream.mapEffect(() =>
      Effect.retry(controller.logPages.discovery, {
        while: (error) =>
          error.reason._tag === "Busy" ? Effect.as(Outside.sleep(busyMillis), true) : Effect.succeed(false)
      })
    ),
    Stream.mapAccum(
      (): ReadonlyMap<string, DiscoveredSubsystem> => new Map(),
      (before, subsystems) => {
        const now = new Map(subsystems.map((one) => [keyOf(one), one] as const))
        const events = changes<DiscoveredSubsystem, DiscoveryEvent>(
          before,
          now,
          (subsystem) => ({ _tag: "Found", subsystem }),
          (subsystem) => ({ _tag: "Lost", subsystem })
        )
        return [now, events] as const
      }
    )
  )
}

/** Looks at the machine's own devices at each tick. */
export const devices = (
  nvme: EngineNvme,
  settings: NvmeConnectSettings,
  schedule: Schedule.Schedule<unknown>
): Stream.Stream<HotplugEvent, ControlError> => {
  const all: NvmeTransportIdFields = {
    trtype: "PCIe",
    adrfam: undefined,
    traddr: "",
    trsvcid: "",
    subnqn: "",
    priority: 0
  }
  const looks = Stream.concat(Stream.make(undefined), Stream.fromSchedule(schedule))
  return Stream.mapEffect(looks, () => controlReasons(nvme.probe(all, settings))).pipe(
    Stream.mapAccum(
      (): ReadonlyMap<string, NvmeTransportIdFields> => new Map(),
      (before, found) => {
        const now = new Map(found.map((one) => [one.traddr, one] as const))
        const events = changes<NvmeTransportIdFields, HotplugEvent>(
          before,
          now,
          (transportId) => ({ _tag: "Found", transportId }),
          (transportId) => ({ _tag: "Lost", transportId })
        )
        return [now, events] as const
      }
    )
  )
}
