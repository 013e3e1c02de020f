/**
 * A counter on a disk, and its simulation: two slots take turns, and the newer one whose check sum is right counts. A thousand seeds cut
 * the power in the middle of increments; what was acknowledged must be there afterwards.
 */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as SimulatedDisk from "@effect-spdk/core/SimulatedDisk"
import * as Simulation from "@effect-spdk/core/Simulation"
import * as SimulationModel from "@effect-spdk/core/SimulationModel"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as Effect from "effect/Effect"

const sector = SimulationModel.stampBytes

/** The service. `flushes` is what a careless author forgets. */
export const makeCounter = (bdev: Bdev.Bdev, flushes: boolean) => {
  const read = Effect.map(bdev.readBytes(0, 2 * sector), (bytes) => {
    const [first = 0, second = 0] = SimulationModel.stampsOf(bytes)
    return Math.max(first, second)
  })
  const increment = Effect.gen(function* () {
    const next = (yield* read) + 1
    yield* bdev.writeBytes((next % 2) * sector, SimulationModel.stamped(sector, next))
    if (flushes) yield* bdev.flush()
    return next
  })
  return { read, increment }
}

/** The first seed of these that loses what was acknowledged; undefined when none does. */
export const simulate = (seeds: number, flushes: boolean): number | undefined => {
  for (let seed = 0; seed < seeds; seed++) {
    const simulation = Simulation.make({ seed })
    const disk = SimulatedDisk.make(simulation, { sizeBytes: 64 * 1024 })
    const life = <A>(use: (bdev: Bdev.Bdev) => Effect.Effect<A, unknown>) =>
      simulation.run(
        Effect.scoped(
          Effect.gen(function* () {
            return yield* use(yield* Bdev.open(yield* SimulatedDisk.attach(disk), { write: true }))
          })
        ).pipe(Effect.provide(Spdk.layerEmbedded({ memoryMiB: 64 })))
      )
    let acknowledged = 0
    const last = simulation.chance("cut").between(1, 40)
    disk.onRequest = ({ number }) => (number === last ? { _tag: "Cut" } : undefined)
    life((bdev) =>
      Effect.forever(
        Effect.map(makeCounter(bdev, flushes).increment, (value) => {
          acknowledged = value
        })
      )
    )
    disk.onRequest = undefined
    const { exit } = life((bdev) => makeCounter(bdev, flushes).read)
    const found = exit?._tag === "Success" ? exit.value : -1
    if (found < acknowledged || found > acknowledged + 1) return seed
  }
  return undefined
}

if (process.argv[1] === import.meta.filename) {
  console.log(`with a flush: ${simulate(1000, true) ?? "no seed of 1000"} loses a value`)
  console.log(`without one: seed ${simulate(1000, false) ?? "none"} loses a value`)
}
