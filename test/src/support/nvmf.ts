/** What the suites of NVMe over fabrics share: an export on a port of this machine's own, and I/O that knows what it wrote. */
import * as Bdev from "@effect-spdk/core/Bdev"
import * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { blockSize, fresh, pattern, sameBytes, until } from "./harness.ts"
import { freePort as anyFreePort } from "./ports.ts"
import type { RandomSource } from "./random.ts"

/** As RPC wants it. */
export const freePort: Effect.Effect<string> = Effect.map(anyFreePort, String)

let names = 0
/** A name that no other test of this process uses. */
export const freshNqn = (word: string): string => `nqn.2026-01.com.example:${word}-${process.pid}-${++names}`

export const makeTarget = NvmfTarget.make()

export interface Exported {
  readonly target: NvmfTarget.NvmfTarget["Service"]
  readonly subsystem: NvmfTarget.Subsystem
  readonly listener: NvmfTarget.Listener
  readonly namespace: NvmfTarget.Namespace
  /** Of the malloc bdev under it. */
  readonly backing: string
  readonly nqn: string
  readonly port: string
}

/** A malloc bdev that anybody may attach, at a port of its own; all of it in the scope. */
export const exported = (
  options: Partial<NvmfTarget.SubsystemOptions> & { readonly numBlocks?: number; readonly port?: string } = {}
) =>
  Effect.gen(function* () {
    const { numBlocks = 8192, port: wanted, ...rest } = options
    const target = yield* makeTarget
    const backing = yield* Bdev.createMalloc({ name: fresh("backing"), blockSize, numBlocks })
    const nqn = freshNqn("disk")
    const subsystem = yield* target.subsystem({ nqn, allowAnyHost: true, ...rest })
    const namespace = yield* subsystem.addNamespace({ bdev: backing })
    const port = wanted ?? (yield* freePort)
    const listener = yield* subsystem.addListener({ trsvcid: port })
    const made: Exported = { target, subsystem, listener, namespace, backing, nqn, port }
    return made
  })

/** What such an export is attached with. */
export const pathTo = ({ nqn, port }: Pick<Exported, "nqn" | "port">) => ({
  name: fresh("nvme"),
  traddr: "127.0.0.1",
  trsvcid: port,
  subnqn: nqn
})

/** The one bdev of an attached export, opened for writing. */
export const attachedBdev = (made: Pick<Exported, "nqn" | "port">, options: Partial<NvmeBdev.AttachOptions> = {}) =>
  Effect.gen(function* () {
    const controller = yield* NvmeBdev.attach({ ...pathTo(made), ...options })
    assert.deepStrictEqual(controller.bdevs, [`${controller.name}n1`])
    const bdev = yield* Bdev.open(`${controller.name}n1`, { write: true })
    return { controller, bdev }
  })

/** Until the channels that are open have so many paths, each of them connected: what is added to them connects by itself. */
export const untilConnected = (controller: NvmeBdev.AttachedController, count: number) =>
  until(
    `${count} paths are connected`,
    Effect.map(controller.ioPaths, (threads) => {
      const paths = threads.flatMap((thread) => thread.paths)
      return paths.length === count && paths.every((path) => path.isConnected && path.isAccessible)
    })
  )

/** Writes at random, and reads all of it back. */
export const verifiedRounds = (bdev: Bdev.Bdev, random: RandomSource, rounds: number) =>
  Effect.gen(function* () {
    const image = new Uint8Array(bdev.sizeBytes)
    yield* bdev.writeBytes(0, image)
    for (let round = 0; round < rounds; round++) {
      const blocks = 1 + random.below(16)
      const offset = random.below(bdev.numBlocks - blocks) * bdev.blockSize
      const bytes = pattern(blocks * bdev.blockSize, random.word())
      yield* bdev.writeBytes(offset, bytes)
      image.set(bytes, offset)
    }
    sameBytes(yield* bdev.readBytes(0, bdev.sizeBytes), image, "what was written at random")
    return image
  })
