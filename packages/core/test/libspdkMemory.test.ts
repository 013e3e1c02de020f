import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { makeMemory } from "../src/internal/libspdk/memory.ts"

const enfile = -23

/** A host that has memory, and no slot left to know it by. */
const memory = makeMemory({
  dmaAllocate: (_lengthBytes, _alignmentBytes, onReply) => onReply({ status: enfile, a: 0, b: 0, text: "" }),
  addon: { dmaAllocateNow: () => enfile, dmaFree: () => {}, dmaRenew: () => 0, dmaView: () => undefined }
})

describe("DMA memory of libspdk", () => {
  // DmaBuffer.make and the pools know NoMemory; any other reason would be a defect there.
  it.effect.each([4096, 2 ** 20])("of %i bytes is NoMemory when there are too many allocations", (lengthBytes) =>
    Effect.gen(function* () {
      const { reason } = yield* Effect.flip(memory.allocate(lengthBytes, 4096))
      assert.include(reason, { _tag: "NoMemory", errno: "ENFILE" })
    })
  )
})
