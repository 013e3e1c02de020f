/** Which files the demo stores: what the paths name, and every file in the folders among them. */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import { DemoError } from "./DemoError.ts"

export interface Source {
  /** Absolute. */
  readonly path: string
  /** Relative to where the command was given, where it lies below, with slashes. What the file is stored as. */
  readonly name: string
  readonly sizeBytes: number
  /** ISO 8601. */
  readonly mtime: string
}

/** ISO 8601, as far as milliseconds. */
export const mtimeOf = (info: FileSystem.File.Info): string =>
  Option.getOrElse(info.mtime, () => new Date(0)).toISOString()

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

  const nameOf = (absolute: string): string => {
    const relative = path.relative(options.base, absolute)
    return (relative.startsWith("..") ? absolute : relative).replaceAll(path.sep, "/")
  }

  const add = (absolute: string, info: FileSystem.File.Info) =>
    found.set(absolute, {
      path: absolute,
      name: nameOf(absolute),
      sizeBytes: ByteSize.toNumberUnsafe(info.size),
      mtime: mtimeOf(info)
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
