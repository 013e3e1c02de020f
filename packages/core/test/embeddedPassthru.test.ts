/** What the commands of a user's cost in the turns of an embedded engine. */
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry, type SlabRange } from "@effect-spdk/native/Queue"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as CpuSet from "../src/CpuSet.ts"
import { EmbeddedBdev, type IoType } from "../src/internal/embedded/bdev/bdev.ts"
import { BdevRegistry } from "../src/internal/embedded/bdev/registry.ts"
import { Handles } from "../src/internal/embedded/queue/handles.ts"
import type { EmbeddedIo } from "../src/internal/embedded/bdev/io.ts"
import { MemoryBudget, SlabTable } from "../src/internal/embedded/queue/memory.ts"
import { Notifications } from "../src/internal/embedded/runtime/notifications.ts"
import { EmbeddedReactor } from "../src/internal/embedded/runtime/reactor.ts"
import { success } from "../src/internal/embedded/queue/status.ts"
import { LogicalThread } from "../src/internal/embedded/runtime/thread.ts"
import * as Timers from "../src/internal/embedded/runtime/timers.ts"
import { start, turn } from "./support/embeddedEngine.ts"

/** Does every command at once. */
class CommandBdev extends EmbeddedBdev {
  readonly moduleName = "test"
  readonly moduleIoTypes: ReadonlySet<IoType> = new Set<IoType>(["nvme_io"])
  readonly isImmediate = false
  submit(io: EmbeddedIo): void {
    io.finish(success)
  }
  destruct(): void {}
}

describe("NVMe commands of a user's", () => {
  it.live("count with their data, so that many of them leave timers and sockets their turn", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      const timers = yield* Timers.make
      const budget = new MemoryBudget(2 ** 24)
      const slabs = new SlabTable(budget)
      const registry = new BdevRegistry({ reactor, timers, budget, notifications: new Notifications(), log: () => {} })
      const handles = new Handles(registry)
      const cores = CpuSet.makeUnsafe([0])
      const thread = new LogicalThread({ reactor, timers, slabs, handles }, { id: 1, name: "t", cores, core: 0 })
      const properties = { name: "d", uuid: "", productName: "", blockSize: 512, numBlocks: 8, hasWriteCache: false }
      const descriptor = handles.openUnregistered(new CommandBdev(reactor, properties), true, () => {})
      const { generation, slot } = handles.openChannel(thread, descriptor)
      const segmentOf = (lengthBytes: number) =>
        Effect.map(slabs.allocate(lengthBytes, 4096), (slab): SlabRange => ({ slab, offsetBytes: 0, lengthBytes }))
      const segments = [yield* segmentOf(64), yield* segmentOf(1024 * 1024)]
      const entry = { opcode: Opcode.NvmeIo, channelSlot: slot, channelGeneration: generation, segments }
      const commands = Array.from({ length: 60 }, () => start(thread.queue, { ...makeEntry(), ...entry }))
      const completed = () => commands.filter(({ times }) => times() > 0).length
      yield* turn
      // 256 units each, of 1024 in a turn.
      assert.isAtMost(completed(), 10)
      while (completed() < commands.length) yield* turn
      assert.strictEqual(
        (yield* Effect.all(commands.map(({ ended }) => ended))).filter(({ status }) => status < 0).length,
        0
      )
    }).pipe(Effect.scoped)
  )
})
