/**
 * The file below an AIO or io_uring bdev, made and extended before SPDK opens it.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import type { FileCreation } from "../BdevCreate.ts"
import { type ErrnoReason, fromErrno, invalid, IoFailed, SpdkError } from "../SpdkError.ts"

type FileError = SpdkError<ErrnoReason>

/** See `FileOptions.create`. */
export const prepareFile = (
  operation: string,
  path: string,
  sizeBytes: number | undefined,
  creation: FileCreation
): Effect.Effect<void, FileError> =>
  Effect.flatMap(
    attempt(operation, path, () => prepare(path, sizeBytes, creation)),
    (lengthBytes) =>
      sizeBytes === undefined || lengthBytes === undefined || lengthBytes >= sizeBytes
        ? Effect.void
        : Effect.fail(invalid(operation, "size", `is more than the file has, ${lengthBytes} bytes`, sizeBytes, path))
  )

/** The length of the file afterwards; undefined for what is no regular file, and has the length it has. */
const prepare = async (
  path: string,
  sizeBytes: number | undefined,
  creation: FileCreation
): Promise<number | undefined> => {
  const makes = creation !== "never" && sizeBytes !== undefined
  const flags = makes ? fs.constants.O_RDWR | fs.constants.O_CREAT : fs.constants.O_RDONLY
  const file = await fs.open(path, flags, 0o600)
  try {
    const before = await file.stat()
    if (!before.isFile()) return undefined
    if (!makes) return before.size
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
      return typeof errno === "number"
        ? fromErrno(errno, context)
        : new SpdkError({ reason: new IoFailed(context) })
    }
  })
