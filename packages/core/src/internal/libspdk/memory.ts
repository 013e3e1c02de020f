/**
 * DMA memory from SPDK: allocations by {slot, generation}, seen by JavaScript as ArrayBuffers over the memory itself.
 */
import type { Host, Reply } from "@effect-spdk/native/Host"
import * as Effect from "effect/Effect"
import { fromErrno, NoMemory, SpdkError } from "../../SpdkError.ts"
import type { EngineMemory, Slab } from "../engine/engine.ts"

const operation = "DmaBuffer.make"

/** Up to here zeroing takes microseconds and happens at once; above it a thread of the pool does it. */
const zeroedAtOnceBytes = 256 * 1024

const mostBytes = 0xffffffff

/** What DMA memory needs of the host. */
export interface MemoryHost extends Pick<Host, "dmaAllocate"> {
  readonly addon: Pick<Host["addon"], "dmaAllocateNow" | "dmaFree" | "dmaRenew" | "dmaView">
}

export const makeMemory = (host: MemoryHost): EngineMemory => {
  const { addon } = host

  const slabAt = (slot: number, generation: number, lengthBytes: number, alignmentBytes: number): Slab => {
    const view = addon.dmaView(slot, generation)
    if (view === undefined) throw new Error(`DMA slab ${slot} of generation ${generation} is not there`)
    return { slot, generation, lengthBytes, alignmentBytes, view: new Uint8Array(view) }
  }

  const fromReply = (reply: Pick<Reply, "status" | "a" | "b">, lengthBytes: number, alignmentBytes: number) =>
    reply.status === 0
      ? Effect.sync(() => slabAt(reply.a, reply.b, lengthBytes, alignmentBytes))
      : Effect.fail(allocationError(reply.status, lengthBytes))

  return {
    allocate: (lengthBytes, alignmentBytes) => {
      if (lengthBytes > mostBytes) return Effect.fail(allocationError(enomem, lengthBytes))
      if (lengthBytes > zeroedAtOnceBytes) {
        // Uninterruptible, and over in milliseconds: an answer that nobody takes would be lost memory.
        return Effect.uninterruptible(
          Effect.flatMap(
            Effect.callback<Reply>((resume) =>
              host.dmaAllocate(lengthBytes, alignmentBytes, (reply) => resume(Effect.succeed(reply)))
            ),
            (reply) => fromReply(reply, lengthBytes, alignmentBytes)
          )
        )
      }
      return Effect.suspend(() => {
        const result = addon.dmaAllocateNow(lengthBytes, alignmentBytes)
        return typeof result === "number"
          ? Effect.fail(allocationError(result, lengthBytes))
          : Effect.sync(() => slabAt(result[0], result[1], lengthBytes, alignmentBytes))
      })
    },
    free: (slab) => addon.dmaFree(slab.slot, slab.generation, slab.view.buffer),
    renew: (slab) => {
      const generation = addon.dmaRenew(slab.slot, slab.generation, slab.view.buffer)
      if (generation === 0) throw new Error(`DMA slab ${slab.slot} is in use or gone`)
      return slabAt(slab.slot, generation, slab.lengthBytes, slab.alignmentBytes)
    }
  }
}

const enomem = -12
/** Memory there is, and no slot to know it by. */
const enfile = -23

const allocationError = (status: number, lengthBytes: number): SpdkError => {
  switch (status) {
    case enomem: {
      const detail = `no ${lengthBytes} bytes of DMA memory in one piece`
      return new SpdkError({ reason: new NoMemory({ operation, detail, errno: "ENOMEM", errnoCode: -enomem }) })
    }
    case enfile: {
      const detail = "the maximum number of DMA allocations is reached: make fewer and slice them"
      return new SpdkError({ reason: new NoMemory({ operation, detail, errno: "ENFILE", errnoCode: -enfile }) })
    }
    default:
      return fromErrno(status, { operation })
  }
}
