/**
 * The file below an AIO or io_uring bdev, made and extended before SPDK opens it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import type { FileCreation } from "../../BdevCreate.ts"
import { type ErrnoReason, failInvalid, fromErrno, IoFailed, SpdkError } from "../../SpdkError.ts"
import { lockFile } from "./fileLock.ts"

type FileError = SpdkError<ErrnoReason>

/**
 * See `FileOptions.create`. What is to be written is locked first, until the scope closes, so that nobody's file is emptied. Returns the length of the file afterwards, or undefined for what is no regular file: a block
 * device, or something that only the server can see.
 */
export const prepareFile = (
  operation: string,
  path: string,
  sizeBytes: number | undefined,
  creation: FileCreation,
  isReadonly: boolean
): Effect.Effect<number | undefined, FileError, Scope.Scope> =>
  Effect.gen(function* () {
    const rule = yield* whyNotDisk(path)
    if (rule !== undefined) return yield* failInvalid(operation, "path", rule, path)
    if (isReadonly) return yield* prepare(operation, path, sizeBytes, creation)
    if (sizeBytes !== undefined && creation !== "never") yield* attempt(operation, path, () => touch(path))
    yield* lockFile(operation, path)
    return yield* prepare(operation, path, sizeBytes, creation)
  })

/** Makes the file when it is missing. */
const touch = async (path: string): Promise<void> => {
  const file = await fs.open(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
  await file.close()
}

/** What is there can be read and written at any place. Nothing is said of what is not there, or only on the server. */
const whyNotDisk = (path: string): Effect.Effect<string | undefined> =>
  Effect.promise(() =>
    fs.stat(path).then(
      (stats) => {
        if (stats.isDirectory()) return "is a directory"
        return stats.isFile() || stats.isBlockDevice() ? undefined : "is neither a file nor a block device"
      },
      () => undefined
    )
  )

const prepare = (
  operation: string,
  path: string,
  sizeBytes: number | undefined,
  creation: FileCreation
): Effect.Effect<number | undefined, FileError> =>
  sizeBytes === undefined
    ? Effect.promise(() => lengthOf(path).catch(() => undefined))
    : creation === "never"
      ? Effect.flatMap(
          attempt(operation, path, () => lengthOf(path)),
          (lengthBytes) =>
            lengthBytes === undefined || lengthBytes >= sizeBytes
              ? Effect.succeed(lengthBytes)
              : failInvalid(operation, "size", `is more than the file has, ${lengthBytes} bytes`, sizeBytes, path)
        )
      : attempt(operation, path, () => make(path, sizeBytes, creation))

const lengthOf = async (path: string): Promise<number | undefined> => {
  const stats = await fs.stat(path)
  return stats.isFile() ? stats.size : undefined
}

const make = async (path: string, sizeBytes: number, creation: FileCreation): Promise<number | undefined> => {
  const file = await fs.open(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
  try {
    const before = await file.stat()
    if (!before.isFile()) return undefined
    if (creation === "always") await file.truncate(0)
    else if (before.size >= sizeBytes) return before.size
    await file.truncate(sizeBytes)
    // A bdev's own flush covers its blocks, not the length of the file.
    await file.sync()
    return sizeBytes
  } finally {
    await file.close()
  }
}

const attempt = <A>(operation: string, resource: string, run: () => Promise<A>): Effect.Effect<A, FileError> =>
  Effect.tryPromise({
    try: run,
    catch: (cause): FileError => {
      const context = { operation, resource, cause }
      const errno = cause instanceof Error && "errno" in cause ? cause.errno : undefined
      return typeof errno === "number" ? fromErrno(errno, context) : new SpdkError({ reason: new IoFailed(context) })
    }
  })
