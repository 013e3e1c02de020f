/** One writer at a time for the file below a bdev, whichever engine, process or name of the file it comes by. */
import * as Bdev from "@effect-spdk/core/Bdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { linkSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { start } from "../support/children.ts"
import { type Capabilities, type EngineLayer, scratchFile } from "../support/engines.ts"
import { contract, failsWith } from "../support/harness.ts"
import { libspdkMissing } from "../support/libspdkMissing.ts"

const sizeBytes = 1024 ** 2

const freshFile = Effect.tap(scratchFile, (path) =>
  Effect.sync(() => {
    writeFileSync(path, "")
    truncateSync(path, sizeBytes)
  })
)

const engines = libspdkMissing === undefined ? (["embedded", "libspdk"] as const) : (["embedded"] as const)

export const suite = (name: string, layer: EngineLayer, { engine }: Capabilities): void =>
  contract(name, layer, (check) => {
    check("two bdevs of one process cannot have one file, by none of its names", () =>
      Effect.gen(function* () {
        const path = yield* freshFile
        const [hard, soft] = [`${path}.hard`, `${path}.soft`]
        linkSync(path, hard)
        symlinkSync(path, soft)
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Bdev.createFile({ path })
            for (const other of [path, hard, soft]) {
              const error = yield* failsWith(Bdev.createFile({ path: other }), "Busy")
              assert.include(error.message, "a bdev of this process")
            }
            const emptied = Bdev.createFile({ path, size: sizeBytes, create: "always" })
            yield* failsWith(emptied, "Busy")
            yield* Bdev.createFile({ path, readonly: true })
          })
        )
        yield* Effect.scoped(Bdev.createFile({ path: hard }))
      })
    )

    check("a bdev that is not made keeps no lock", () =>
      Effect.gen(function* () {
        const path = yield* freshFile
        const size = sizeBytes * 2
        yield* failsWith(Bdev.createFile({ path, size, create: "never" }), "InvalidArgument")
        yield* Bdev.createFile({ path })
      })
    )

    for (const other of engines) {
      check(`a process with the ${other} engine keeps the file until it is killed`, () =>
        Effect.gen(function* () {
          const path = yield* freshFile
          const child = yield* start("holdsFile", [other, path])
          yield* child.line(/holds the file/)
          const error = yield* failsWith(Bdev.createFile({ path }), "Busy")
          assert.include(error.message, `process ${child.process.pid}`)
          child.process.kill("SIGKILL")
          yield* child.ended
          yield* Bdev.createFile({ path })
        })
      )
    }

    check("another process is refused what this one holds", () =>
      Effect.gen(function* () {
        const path = yield* freshFile
        yield* Bdev.createFile({ path })
        const child = yield* start("holdsFile", [engine, path])
        const [line] = yield* child.line(/refused: .*/)
        assert.include(line, `process ${process.pid}`)
        yield* child.ended
      })
    )
  })
