/** Volumes behind a target, and the I/O of its host, each beside the model. */
import type * as Bdev from "@effect-spdk/core/Bdev"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import type { Simulation } from "@effect-spdk/core/Simulation"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import { together } from "./blobModel.ts"
import type { RangeAction } from "./netPlan.ts"

const sectorBytes = Model.stampBytes

/** A write that has not ended. */
interface Pending {
  /** The power goes: it is done or not, and perhaps it comes after that. */
  readonly cross: () => void
  readonly again: () => void
}

export class Volume {
  readonly label: string
  readonly uuid: string
  readonly disk: SimulatedDisk.SimulatedDisk
  readonly sectors: ReadonlyArray<Model.Register<number>>
  /** Counts power cuts. */
  powers = 0
  private readonly pending = new Set<Pending>()
  private readonly time: Model.Time

  constructor(simulation: Simulation, time: Model.Time, label: string, index: number, sectors: number) {
    this.label = label
    this.uuid = `00000000-0000-4000-8000-00000000000${index}`
    this.time = time
    this.disk = SimulatedDisk.make(simulation, { name: label, sizeBytes: sectors * sectorBytes })
    this.sectors = Array.from({ length: sectors }, () => Model.makeRegister(time, Model.zeroStamp))
  }

  /** The disk alone loses its power, and has it back. */
  losePower(): void {
    for (const one of this.pending) one.cross()
    for (const sector of this.sectors) sector.crash()
    this.powers++
    for (const one of this.pending) one.again()
    this.disk.losePower()
  }

  begin(first: number, count: number, stamp: number): Model.Change {
    const registers = this.sectors.slice(first, first + count)
    const begin = () => together(registers.map((register) => register.begin(stamp)))
    let change = begin()
    let hasCrossed = false
    const pending: Pending = {
      cross: () => {
        change.fail()
        hasCrossed = true
      },
      again: () => {
        change = begin()
      }
    }
    this.pending.add(pending)
    const end = (finish: () => void) => {
      this.pending.delete(pending)
      finish()
    }
    return {
      // The answer may be older than the power cut.
      succeed: () => end(() => (hasCrossed ? change.fail() : change.succeed())),
      fail: () => end(() => change.fail()),
      refuse: () => end(() => (hasCrossed ? change.fail() : change.refuse()))
    }
  }

  /** What is acknowledged now is durable once the flush that begins has ended. */
  beginFlush(): () => void {
    const { powers } = this
    const begin = this.time.next()
    return () => {
      if (powers === this.powers) for (const sector of this.sectors) sector.durableSince(begin)
    }
  }

  /** Says what is wrong with what was read. */
  beginRead(first: number, count: number): (bytes: Uint8Array) => ReadonlyArray<string> {
    const { powers } = this
    const begin = this.time.next()
    const registers = this.sectors.slice(first, first + count)
    return (bytes) => {
      if (powers !== this.powers) return []
      return Model.stampsOf(bytes).flatMap((stamp, index) => {
        const register = registers[index]
        const allowed = register?.possible(begin) ?? []
        return register === undefined || register.found(stamp, begin)
          ? []
          : [`sector ${first + index} of ${this.label} has ${stamp}, and not one of ${allowed.join(", ")}`]
      })
    }
  }
}

/** What of the range there is. */
export const clip = (
  sectors: number,
  at: number,
  length: number
): { readonly first: number; readonly count: number } => {
  const first = at % sectors
  return { first, count: Math.min(length, sectors - first) }
}

export const writes = (
  bdev: Bdev.Bdev,
  kind: Exclude<RangeAction["_tag"], "Read">,
  first: number,
  count: number,
  stamp: number
) => {
  const offset = first * sectorBytes
  const length = count * sectorBytes
  if (kind === "Zero") return bdev.writeZeroes(offset, length)
  return kind === "Unmap" ? bdev.unmap(offset, length) : bdev.writeBytes(offset, Model.stamped(length, stamp))
}

export const reads = (bdev: Bdev.Bdev, volume: Volume, first: number, count: number) =>
  Effect.suspend(() => {
    const check = volume.beginRead(first, count)
    return Effect.map(bdev.readBytes(first * sectorBytes, count * sectorBytes), check)
  })
