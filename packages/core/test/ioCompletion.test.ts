/** An interruption whose fiber yields between the question and the answer, while the device lets go. */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Channel } from "../src/internal/io/channels.ts"
import { IoCompletion } from "../src/internal/io/ioCompletion.ts"
import type { Memory } from "../src/internal/memory/ioMemory.ts"

// What a completion uses of them.
const channel = { bdev: { name: "disk", leave: () => {} }, queue: { abort: () => {} } } as unknown as Channel
const memory = { pins: 1, released: false, slot: 0, generation: 1 } as unknown as Memory

describe("the interruption of an I/O", () => {
  it.effect("ends when the request completes before the fiber goes on", () =>
    Effect.gen(function* () {
      const completion = new IoCompletion(() => {}, channel, memory, "Bdev.read")
      const interruption = completion.asEffect()
      completion.complete(0, 0, 0, 0)
      yield* interruption
    })
  )
})
