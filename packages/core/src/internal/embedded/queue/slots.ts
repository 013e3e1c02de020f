/**
 * What users name by {slot, generation}. A slot is used again under a new generation, so that the name of what was there before is
 * nobody's.
 */
import type { Host } from "../../engine/host.ts"

export class SlotTable<A> {
  private readonly entries: Array<A | undefined> = []
  private readonly generations: Array<number> = []
  private readonly freeSlots: Array<number> = []
  private readonly host: Host

  constructor(host: Host) {
    this.host = host
  }

  /** When `make` throws the slot stays free. */
  open(make: (slot: number, generation: number) => A): A {
    const slot = this.freeSlots.pop() ?? this.entries.length
    try {
      const entry = make(slot, this.renew(slot))
      this.entries[slot] = entry
      return entry
    } catch (error) {
      this.free(slot)
      throw error
    }
  }

  /** The next generation of the slot, whose entry stays. The first one is random: a guessed name is hardly ever somebody's. */
  renew(slot: number): number {
    const last = this.generations[slot] ?? Math.floor(this.host.random() * 2 ** 32)
    const generation = (last + 1) % 2 ** 32 || 1
    this.generations[slot] = generation
    return generation
  }

  find(slot: number, generation: number): A | undefined {
    return this.generations[slot] === generation ? this.entries[slot] : undefined
  }

  free(slot: number): void {
    this.entries[slot] = undefined
    this.freeSlots.push(slot)
  }

  values(): ReadonlyArray<A> {
    return this.entries.filter((entry) => entry !== undefined)
  }
}
