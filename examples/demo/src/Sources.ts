/** Which files the demo writes: what the paths name, and every file in the folders among them. */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import { DemoError } from "./DemoError.ts"

export interface Source {
  /** Absolute. */
  readonly path: string
  /** For people: relative to where the command was given, where it lies below. */
  readonly label: string
  readonly sizeBytes: number
}

/** Where a source lies on the device. */
export interface Placed extends Source {
  readonly offsetBytes: number
}

export interface Layout {
  readonly files: ReadonlyArray<Placed>
  readonly totalBytes: number
  /** What the device must hold: every file starts on a block of its own. */
  readonly neededBytes: number
}

/**
 * Walks the paths in order. Symbolic links, sockets and devices inside folders are left out, and so are folders
 * that `skip` names; a path that is not there fails.
 */
export const collect = Effect.fn("demo.collect")(function* (
  paths: ReadonlyArray<string>,
  options: { readonly base: string; readonly skip: (folder: string) => boolean }
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const found = new Map<string, Source>()

  const label = (absolute: string): string => {
    const relative = path.relative(options.base, absolute)
    return relative.startsWith("..") ? absolute : relative
  }

  const add = (absolute: string, info: FileSystem.File.Info) =>
    found.set(absolute, {
      path: absolute,
      label: label(absolute),
      sizeBytes: ByteSize.toNumberUnsafe(info.size)
    })

  const walk = (folder: string): Effect.Effect<void, PlatformError> =>
    Effect.gen(function* () {
      const entries = yield* fs.readDirectoryEntries(folder)
      for (const entry of entries.toSorted((left, right) => (left.name < right.name ? -1 : 1))) {
        const absolute = path.join(folder, entry.name)
        if (entry.type === "File") add(absolute, yield* fs.stat(absolute))
        else if (entry.type === "Directory" && !options.skip(entry.name)) yield* walk(absolute)
      }
    })

  for (const given of paths) {
    const absolute = path.resolve(options.base, given)
    const info = yield* fs
      .stat(absolute)
      .pipe(
        Effect.catchReason("PlatformError", "NotFound", () =>
          Effect.fail(new DemoError({ message: `no such file or folder: ${given}` }))
        )
      )
    if (info.type === "Directory") yield* walk(absolute)
    else if (info.type === "File") add(absolute, info)
    else return yield* new DemoError({ message: `not a file or folder: ${given}` })
  }
  if (found.size === 0) return yield* new DemoError({ message: `no files in ${paths.join(", ")}` })
  return [...found.values()]
})

const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit

/** Lays the sources one after the other on a device with blocks of this size. */
export const place = (sources: ReadonlyArray<Source>, blockSizeBytes: number): Layout => {
  let offsetBytes = 0
  let totalBytes = 0
  const files = sources.map((source) => {
    const placed = { ...source, offsetBytes }
    offsetBytes += roundUp(source.sizeBytes, blockSizeBytes)
    totalBytes += source.sizeBytes
    return placed
  })
  return { files, totalBytes, neededBytes: offsetBytes }
}
