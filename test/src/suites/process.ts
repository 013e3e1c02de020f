/** An engine in processes of its own: how they end, what survives their death, and worker threads. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { closeSync, existsSync, fstatSync, openSync, readSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { expectExit, run, start } from "../support/children.ts"
import { durableBlocks, durableBlockSize, durableScript, readStamp } from "../support/durable.ts"
import { type Capabilities, long, scratch, scratchFile } from "../support/engines.ts"
import { freePort, isFree } from "../support/ports.ts"
import { seeded } from "../support/random.ts"

export const suite = (name: string, { engine }: Capabilities): void => {
  describe(name, () => {
    it.live("a program that ends with I/O in flight waits for it, releases everything and exits 0", () =>
      Effect.gen(function* () {
        const ended = yield* run("exits", [engine, "end"])
        expectExit(ended, 0)
        assert.match(ended.stdout, /released/)
      })
    )

    it.live("process.exit with I/O in flight exits with its code", () =>
      Effect.map(run("exits", [engine, "exit"]), (ended) => expectExit(ended, 3))
    )

    it.live("an uncaught exception with I/O in flight exits as Node's do, and says what it was", () =>
      Effect.gen(function* () {
        const ended = yield* run("exits", [engine, "throw"])
        assert.isNull(ended.signal, ended.stderr)
        assert.isAbove(ended.code ?? 0, 0)
        assert.match(ended.stderr, /thrown on purpose/)
      })
    )

    it.live("an unhandled rejection with I/O in flight exits as Node's do, and says what it was", () =>
      Effect.gen(function* () {
        const ended = yield* run("exits", [engine, "reject"])
        assert.isNull(ended.signal, ended.stderr)
        assert.isAbove(ended.code ?? 0, 0)
        assert.match(ended.stderr, /rejected on purpose/)
      })
    )

    it.live("process.exit while nobody waits for the program", () =>
      Effect.map(run("exits", [engine, "abandon"]), (ended) => expectExit(ended, 0))
    )

    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      it.live(`${signal} with I/O in flight releases everything`, () =>
        Effect.scoped(
          Effect.gen(function* () {
            const child = yield* start("exits", [engine, "interrupt"])
            yield* child.line(/in flight/)
            child.process.kill(signal)
            const ended = yield* child.ended
            assert.match(ended.stdout, /released/)
            assert.isNull(ended.signal, ended.stderr)
            assert.strictEqual(ended.code, 130, ended.stderr)
          })
        )
      )
    }

    it.live("the engine in the main thread and three workers at once", () =>
      Effect.gen(function* () {
        const ended = yield* run("workers", [engine, "end"])
        expectExit(ended, 0)
        assert.match(ended.stdout, /all done/)
      })
    )

    it.live("one configuration in the main thread and three workers runs its calls once per engine", () =>
      Effect.gen(function* () {
        const ended = yield* run("configured", [engine])
        expectExit(ended, 0)
        assert.match(ended.stdout, /^same: opened, opened, opened, opened$/m)
        assert.match(ended.stdout, /^once more: opened$/m)
        // Where the threads share an SPDK another configuration comes too late; else it is of another engine.
        assert.match(ended.stdout, engine === "libspdk" ? /^other: .*OptionsClash.*config/m : /^other: opened$/m)
      })
    )

    it.live("workers terminated in the middle of their I/O leave the main thread unharmed", () =>
      Effect.gen(function* () {
        const ended = yield* run("workers", [engine, "terminate"])
        expectExit(ended, 0)
        assert.match(ended.stdout, /all done/)
      })
    )

    it.live("a child inherits what it is handed and nothing else; the port is free when its parent is gone", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const port = yield* freePort
          const child = yield* start("inherits", [engine, `${port}`])
          const [, json = ""] = yield* child.line(/^inherits (.*)$/m)
          // The program printed it itself.
          const { after, before } = JSON.parse(json) as { readonly before: Inherited; readonly after: Inherited }
          yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(after.pid, "SIGKILL")))
          const added = Object.keys(after.descriptors).filter((name) => !(name in before.descriptors))
          assert.deepStrictEqual(added, [], json)
          // A pipe and a file beside the standard three.
          assert.includeMembers(Object.keys(after.descriptors), ["0", "1", "2", "3", "4"])
          assert.match(after.descriptors["4"] ?? "", /package\.json$/)
          child.process.kill("SIGKILL")
          yield* child.ended
          assert.isTrue(yield* isFree(port), "nobody listens there any more")
        })
      )
    )

    const rounds = long ? 100 : 3
    it.live(
      `${rounds} times killed: everything that was flushed is in the file`,
      () =>
        seeded((random) =>
          Effect.gen(function* () {
            for (let round = 0; round < rounds; round++) {
              yield* killedAndReopened(engine, random.word(), 1 + random.below(long ? 200 : 30))
            }
          })
        ),
      long ? 1_800_000 : 60_000
    )

    startTests(engine)
  })
}

/** What /proc says of a child's descriptors, by number. */
interface Inherited {
  readonly pid: number
  readonly descriptors: Readonly<Record<string, string>>
}

/** Lets the flusher flush so often, kills it, and looks at the file without any engine. */
const killedAndReopened = (engine: string, scriptSeed: number, flushes: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const path = yield* scratchFile
      const child = yield* start("flusher", [engine, path, `${scriptSeed}`])
      yield* child.lines("flushed ", flushes)
      child.process.kill("SIGKILL")
      const ended = yield* child.ended
      assert.strictEqual(ended.signal, "SIGKILL", ended.stderr)
      const safe = Number(/flushed (\d+)\n[^\n]*$/.exec(child.stdout())?.[1])
      assert.isAbove(safe, 0)
      checkFile(path, scriptSeed, safe)
    })
  )

/** Every block holds its last write before the flush, or a later one. */
const checkFile = (path: string, scriptSeed: number, safe: number): void => {
  const script = durableScript(scriptSeed)
  const atLeast = new Uint32Array(durableBlocks)
  const later = Array.from({ length: durableBlocks }, () => new Set<number>())
  // As many writes after the flush as can have been on their way: until the next flush would have been reported.
  for (let step = 0, beyond = false; !beyond;) {
    const { blocks, flush } = script.next(32)
    for (const block of blocks) {
      step++
      if (step <= safe) atLeast[block] = step
      else later[block]?.add(step)
    }
    beyond = step > safe && flush && step > safe + 32 * 20
  }
  const file = openSync(path, "r")
  try {
    assert.strictEqual(fstatSync(file).size, durableBlocks * durableBlockSize)
    const bytes = new Uint8Array(durableBlockSize)
    for (let block = 0; block < durableBlocks; block++) {
      readSync(file, bytes, 0, durableBlockSize, block * durableBlockSize)
      const step = readStamp(bytes, block)
      assert.isDefined(step, `block ${block} is torn or another's`)
      const isAllowed = step === atLeast[block] || (step !== undefined && later[block]?.has(step) === true)
      assert.isTrue(isAllowed, `block ${block} holds write ${step}; write ${atLeast[block]} was flushed`)
    }
  } finally {
    closeSync(file)
  }
}

/** Starts an engine in a process of its own and hands on what came of it. */
const outcome = (engine: string, options: unknown) =>
  Effect.map(run("start", [engine, JSON.stringify(options)]), (ended) => {
    expectExit(ended, 0)
    const line = /^outcome (.*)$/m.exec(ended.stdout)?.[1]
    assert.isDefined(line, ended.stdout)
    // The program printed it itself.
    return JSON.parse(line ?? "{}") as Outcome
  })

interface Outcome {
  readonly started?: {
    readonly version: string
    readonly description: string
    readonly rpcSocket?: string
    readonly cores: ReadonlyArray<number>
    readonly bdevs: ReadonlyArray<string>
  }
  readonly failed?: Readonly<Record<string, unknown>>
  readonly died?: string
}

const bdevConfig = (...config: ReadonlyArray<{ readonly method: string; readonly params?: unknown }>) => ({
  subsystems: [{ subsystem: "bdev", config }]
})

const startTests = (engine: string): void => {
  const fails = (options: unknown, fields: Readonly<Record<string, unknown>>) =>
    Effect.map(outcome(engine, options), ({ failed, ...rest }) => {
      assert.isDefined(failed, JSON.stringify(rest))
      for (const [field, value] of Object.entries(fields)) {
        if (value instanceof RegExp) assert.match(String(failed?.[field]), value)
        else assert.deepStrictEqual(failed?.[field], value, JSON.stringify(failed))
      }
    })

  it.live("starts by default options and says what it is", () =>
    Effect.gen(function* () {
      const { started } = yield* outcome(engine, {})
      assert.isDefined(started)
      assert.include(started?.description, engine === "libspdk" ? "SPDK" : "embedded")
      assert.deepStrictEqual(started?.bdevs, [])
      assert.isAtLeast(started?.cores.length ?? 0, 1)
    })
  )

  it.live("takes the cores, the configuration and the socket that it is told", () =>
    Effect.gen(function* () {
      const rpcSocket = join(scratch, `${engine}.sock`)
      const config = bdevConfig({
        method: "bdev_malloc_create",
        params: { name: "configured", num_blocks: 64, block_size: 512 }
      })
      const { started } = yield* outcome(engine, { cores: "[0-1]", rpcSocket, config })
      assert.deepStrictEqual(started?.cores, [0, 1])
      assert.deepStrictEqual(started?.bdevs, ["configured"])
      assert.strictEqual(started?.rpcSocket, rpcSocket)
      assert.isFalse(existsSync(rpcSocket), "the socket went with its process")
    })
  )

  it.live("takes what save_config writes: calls for the time before the start among the others", () =>
    Effect.gen(function* () {
      const { failed, started } = yield* outcome(engine, {
        config: bdevConfig(
          { method: "bdev_set_options", params: { bdev_io_pool_size: 1024, bdev_io_cache_size: 16 } },
          { method: "bdev_malloc_create", params: { name: "saved", num_blocks: 64, block_size: 512 } },
          { method: "bdev_passthru_create", params: { name: "over", base_bdev_name: "saved" } },
          { method: "bdev_wait_for_examine" }
        )
      })
      assert.deepStrictEqual(started?.bdevs, ["saved", "over"], JSON.stringify(failed))
    })
  )

  it.live("options that SPDK refuses before its start", () =>
    fails(
      {
        config: bdevConfig({ method: "bdev_set_options", params: { bdev_io_pool_size: 16, bdev_io_cache_size: 256 } })
      },
      { _tag: "ConfigRejected", method: "bdev_set_options", index: 0, code: -32602 }
    )
  )

  it.live("reads a configuration from a file", () =>
    Effect.gen(function* () {
      const path = yield* scratchFile
      writeFileSync(
        path,
        JSON.stringify(
          bdevConfig({ method: "bdev_null_create", params: { name: "n", num_blocks: 64, block_size: 512 } })
        )
      )
      const { started } = yield* outcome(engine, { config: path })
      assert.deepStrictEqual(started?.bdevs, ["n"])
    })
  )

  it.live("a configuration that SPDK refuses is ConfigRejected, with the call, its index and the code", () =>
    Effect.gen(function* () {
      const good = { method: "bdev_malloc_create", params: { name: "good", num_blocks: 64, block_size: 512 } }
      yield* fails(
        { config: bdevConfig(good, good) },
        {
          _tag: "ConfigRejected",
          method: "bdev_malloc_create",
          index: 1,
          code: -17
        }
      )
      yield* fails(
        { config: bdevConfig({ method: "bdev_no_such_create", params: {} }) },
        {
          _tag: "ConfigRejected",
          method: "bdev_no_such_create",
          index: 0,
          code: -32601
        }
      )
    })
  )

  if (engine === "libspdk") {
    it.live("a core that does not exist", () =>
      fails({ cores: "[1023]" }, { _tag: "InvalidArgument", field: /^cores/ })
    )

    it.live("more memory than the machine has", () =>
      fails({ memoryMiB: 1_048_576 }, { _tag: "InvalidArgument", field: "memoryMiB" })
    )

    it.live("too little memory for SPDK's own pools: StartFailed, and the process goes on", () =>
      fails({ memoryMiB: 64 }, { _tag: "StartFailed" })
    )
  }
}
