/** A target that comes back with another volume in the place of the one that is in use: nothing is written to that. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Nvme from "@effect-spdk/core/Nvme"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { contract, expectReasonIn, failsWith, fresh, pattern, sameBytes, until, within } from "../support/harness.ts"
import { watchesVolumes } from "../support/spdkVersion.ts"
import { type NvmeSuite, sharedTarget } from "../support/nvmeSuite.ts"
import { exported, type Exported, type NvmfTarget } from "../support/nvmfTarget.ts"

const listenAddress = ({ port }: Exported) => ({
  trtype: "TCP",
  adrfam: "IPv4",
  traddr: "127.0.0.1",
  trsvcid: `${port}`
})

const unlisten = (target: NvmfTarget, subsystem: Exported) =>
  target.rpc("nvmf_subsystem_remove_listener", { nqn: subsystem.subnqn, listen_address: listenAddress(subsystem) })

const listen = (target: NvmfTarget, subsystem: Exported) =>
  target.rpc("nvmf_subsystem_add_listener", { nqn: subsystem.subnqn, listen_address: listenAddress(subsystem) })

/** A volume with identifiers of its own takes namespace 1. Returns its UUID. */
const swap = (target: NvmfTarget, { subnqn }: Exported, blockSize = 512) =>
  Effect.gen(function* () {
    const bdev_name = fresh("other")
    const uuid = crypto.randomUUID()
    yield* target.rpc("bdev_malloc_create", { name: bdev_name, block_size: blockSize, num_blocks: 1024 })
    yield* target.rpc("nvmf_subsystem_remove_ns", { nqn: subnqn, nsid: 1 })
    const nguid = uuid.replaceAll("-", "").toUpperCase()
    yield* target.rpc("nvmf_subsystem_add_ns", { nqn: subnqn, namespace: { nsid: 1, bdev_name, uuid, nguid } })
    yield* Effect.addFinalizer(() =>
      target
        .rpc("nvmf_subsystem_remove_ns", { nqn: subnqn, nsid: 1 })
        .pipe(Effect.andThen(target.rpc("bdev_malloc_delete", { name: bdev_name })), Effect.exit)
    )
    return uuid
  })

/** What namespace 1 holds now, by a connection of its own. */
const contents = (subsystem: Exported, lengthBytes: number) =>
  Effect.scoped(
    Effect.flatMap(Nvme.connect(subsystem.transportId), (controller) =>
      Effect.flatMap(controller.namespace(1), (disk) => disk.readBytes(0, lengthBytes))
    )
  )

const attached = (target: Effect.Effect<NvmfTarget>) =>
  Effect.gen(function* () {
    const running = yield* target
    const subsystem = yield* exported(running)
    const name = fresh("nvme")
    const options = { traddr: "127.0.0.1", trsvcid: subsystem.port, subnqn: subsystem.subnqn }
    const loss = { reconnectDelay: "1 second", lossTimeout: "60 seconds" } as const
    const controller = yield* NvmeBdev.attach({ name, ...options, ...loss })
    const bdev = yield* Bdev.open(`${name}n1`, { write: true })
    yield* bdev.writeBytes(0, pattern(4096, 1))
    return { bdev, controller, name, subsystem, target: running }
  })

/**
 * What comes of the volume that has taken the place: a bdev of its own. SPDK's module cannot make one where it has not seen the
 * first volume go; its controller is detached as a whole then.
 */
const outcome = (
  isEmbedded: boolean,
  { controller, name, uuid }: { controller: NvmeBdev.AttachedController; name: string; uuid: string }
) =>
  until(
    "the other volume is a bdev of its own",
    Effect.gen(function* () {
      const found = yield* Effect.exit(Bdev.find(`${name}n1`))
      if (found._tag === "Success" && found.value.uuid === uuid) return true
      return !isEmbedded && (yield* Effect.exit(controller.paths))._tag === "Failure"
    })
  )

/** The state of the one path, as the engine names it. */
const isDown = (controller: NvmeBdev.AttachedController) =>
  Effect.map(controller.paths, (paths) => paths.every(({ state }) => state !== "enabled"))

export const suite: NvmeSuite = (name, layer, capabilities, factory) => {
  const isEmbedded = capabilities.engine === "embedded"
  // SPDK ends what waits when its path goes, and says no more of it.
  const removed = isEmbedded ? (["DeviceRemoved"] as const) : (["DeviceRemoved", "IoFailed", "Aborted"] as const)
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    for (const [what, blockSize] of [
      ["another volume", 512],
      ["another volume of another block size", 4096]
    ] as const) {
      check(`${what} after a lost connection: DeviceRemoved, and nothing is written to it`, () =>
        Effect.gen(function* () {
          if (!isEmbedded) yield* watchesVolumes
          const { bdev, controller, name: nvme, subsystem, target: running } = yield* attached(target)
          yield* unlisten(running, subsystem)
          yield* until("the loss is noticed", isDown(controller))
          const waiting = yield* Effect.forEach([0, 1, 2, 3], (i) =>
            Effect.forkScoped(bdev.writeBytes(i * 4096, pattern(4096, 7)), { startImmediately: true })
          )
          const uuid = yield* swap(running, subsystem, blockSize)
          yield* listen(running, subsystem)
          for (const fiber of waiting) {
            expectReasonIn(yield* within("an answer", Fiber.await(fiber)), removed)
          }
          // SPDK may still be detaching the controller.
          expectReasonIn(yield* Effect.exit(bdev.writeBytes(0, pattern(4096, 7))), removed)
          yield* until(
            "the removal",
            Effect.sync(() => bdev.isRemoved)
          )
          yield* failsWith(bdev.writeBytes(0, pattern(4096, 7)), "DeviceRemoved")
          yield* failsWith(bdev.readBytes(0, 4096), "DeviceRemoved")
          sameBytes(yield* contents(subsystem, 32_768), new Uint8Array(32_768), "the other volume")
          yield* outcome(isEmbedded, { controller, name: nvme, uuid })
        })
      )
    }

    check("the same volume after a lost connection: what waited is written, and nothing is removed", () =>
      Effect.gen(function* () {
        const { bdev, controller, subsystem, target: running } = yield* attached(target)
        yield* unlisten(running, subsystem)
        yield* until("the loss is noticed", isDown(controller))
        const waiting = yield* Effect.forkScoped(bdev.writeBytes(0, pattern(4096, 9)), { startImmediately: true })
        yield* listen(running, subsystem)
        yield* within("the write that waited", Fiber.join(waiting))
        sameBytes(yield* bdev.readBytes(0, 4096), pattern(4096, 9), "what was written after all")
      })
    )

    check("another volume while connected: the bdev of the first is removed", () =>
      Effect.gen(function* () {
        if (!isEmbedded) yield* watchesVolumes
        const { bdev, controller, name: nvme, subsystem, target: running } = yield* attached(target)
        const uuid = yield* swap(running, subsystem)
        yield* outcome(isEmbedded, { controller, name: nvme, uuid })
        yield* failsWith(bdev.writeBytes(0, pattern(4096, 7)), "DeviceRemoved")
        sameBytes(yield* contents(subsystem, 4096), new Uint8Array(4096), "the other volume")
      })
    )

    check("a namespace handle whose controller is reset and finds another volume is removed", () =>
      Effect.gen(function* () {
        const running = yield* target
        const subsystem = yield* exported(running)
        const controller = yield* Nvme.connect(subsystem.transportId)
        const disk = yield* controller.namespace(1)
        yield* disk.writeBytes(0, pattern(4096, 1))
        yield* unlisten(running, subsystem)
        yield* until(
          "the loss is noticed",
          Effect.sync(() => controller.state === "failed"),
          30_000
        )
        yield* swap(running, subsystem)
        yield* listen(running, subsystem)
        yield* within("a reset", controller.reset)
        yield* failsWith(disk.writeBytes(0, pattern(4096, 7)), "DeviceRemoved")
        yield* until(
          "the removal is told",
          Effect.sync(() => disk.isRemoved)
        )
        const again = yield* controller.namespace(1)
        sameBytes(yield* again.readBytes(0, 4096), new Uint8Array(4096), "the other volume")
        assert.isFalse(again.isRemoved)
      })
    )
  })
}
