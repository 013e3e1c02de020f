/**
 * SPDK's keyring: named keys for TLS and for DH-HMAC-CHAP. Use keys to admit hosts by more than their name. SPDK stores
 * the path of a key and reads the file each time it needs the key. The file must therefore exist as long as the scope,
 * and be readable by the process that SPDK runs in.
 *
 * ```ts
 * import * as Keyring from "@effect-spdk/core/Keyring"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const secret = yield* Keyring.generateDhchap({ hash: "sha256" })
 *   const key = yield* Keyring.add({ secret })
 *   return key.name
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { generatedName } from "./internal/bdev/options.ts"
import { keyTextRule, randomDhchap, randomPsk } from "./internal/nvmeBdev/keys.ts"
import { withinLimitByRpc } from "./internal/common/release.ts"
import { callDecoded } from "./internal/rpc/decoded.ts"
import * as Rpc from "./Rpc.ts"
import { RpcClient } from "./Rpc.ts"
import {
  AlreadyExists,
  failInvalid,
  fromErrno,
  type InvalidArgument,
  IoFailed,
  type RpcReason,
  SpdkError
} from "./SpdkError.ts"

/** A key of the keyring, identified by its name. This value holds no secret. @since 0.1.0 @category models */
export interface Key {
  readonly name: string
}

/** A key, or the name of a key that was added elsewhere. @since 0.1.0 @category models */
export type KeyInput = Key | string

/** The reasons for which a call on the keyring fails. @since 0.1.0 @category errors */
export type KeyringError = SpdkError<RpcReason>

/** @since 0.1.0 @category options */
export interface AddFileOptions {
  /** Default: generated. */
  readonly name?: string | undefined
  /**
   * The path of the file with the key, as the process that SPDK runs in sees it. A relative path starts at this
   * process's working directory. SPDK requires that its own user owns the file and that no other user has permissions.
   */
  readonly path: string
}

/** @since 0.1.0 @category options */
export interface AddOptions {
  /** Default: generated. */
  readonly name?: string | undefined
  /**
   * The key in its interchange format, `NVMeTLSkey-1:01:...:` or `DHHC-1:01:...:`. The checksum is verified. Give
   * either `secret` or `bytes`.
   */
  readonly secret?: Redacted.Redacted<string> | undefined
  /** The exact content of the file, unchecked, for other kinds of keys. */
  readonly bytes?: Redacted.Redacted<Uint8Array> | undefined
}

/** A key as the keyring reports it. @since 0.1.0 @category models */
export const KeyInfo = Schema.Struct({
  name: Schema.String,
  /** The module of the key: `keyring_file` or `keyring_linux`. */
  module: Schema.String,
  removed: Schema.Boolean,
  probed: Schema.Boolean,
  /** The number of references that SPDK holds to the key. */
  refcnt: Schema.Number,
  path: Schema.optional(Schema.String)
})
export type KeyInfo = typeof KeyInfo.Type

/**
 * Adds a key that is in a file (`keyring_file_add_key`). The end of the scope removes the key from the keyring. A
 * current user of the key keeps it until that use ends. The file stays. Fails with:
 *
 * - `AlreadyExists` when the name is taken,
 * - `PermissionDenied` when other users may read the file,
 * - `NotFound` when there is no file.
 *
 * @since 0.1.0
 * @category constructors
 */
export const addFile: (options: AddFileOptions) => Effect.Effect<Key, KeyringError, RpcClient | Scope.Scope> =
  Effect.fn("Keyring.addFile")(function* (options: AddFileOptions) {
    if (options.path === "" || options.path.includes("\0")) {
      return yield* failInvalid("Keyring.addFile", "path", "is empty or contains a NUL character", options.path)
    }
    const name = yield* nameOf("Keyring.addFile", options.name)
    return yield* addPath(name, path.resolve(options.path))
  })

/**
 * Adds a key from memory. The key is written to its own file, with mode 0600, in a directory of mode 0700 under the
 * system's temporary directory. The end of the scope removes the key from the keyring and deletes the file. For an SPDK
 * on another machine, put the file there and use `addFile`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const add: (options: AddOptions) => Effect.Effect<Key, KeyringError, RpcClient | Scope.Scope> = Effect.fn(
  "Keyring.add"
)(function* (options: AddOptions) {
  const name = yield* nameOf("Keyring.add", options.name)
  const content = yield* contentOf(options)
  return yield* addPath(name, yield* privateFile(content))
})

/** Lists all keys of all keyring modules (`keyring_get_keys`). @since 0.1.0 @category inspection */
export const list: Effect.Effect<ReadonlyArray<KeyInfo>, KeyringError, RpcClient> = Effect.flatMap(RpcClient, (rpc) =>
  callDecoded(rpc, Schema.Array(KeyInfo), "keyring_get_keys")
)

/**
 * Generates a random key for TLS, in its interchange format. Default: 32 bytes for SHA-256.
 *
 * @since 0.1.0
 * @category generation
 */
export const generatePsk = (options?: {
  readonly hash?: "sha256" | "sha384" | undefined
}): Effect.Effect<Redacted.Redacted<string>> => Effect.sync(() => Redacted.make(randomPsk(options?.hash ?? "sha256")))

/**
 * Generates a random key for DH-HMAC-CHAP, in its interchange format. `hash` names the transformation of the key before
 * use, and decides the key's length. Default "sha256".
 *
 * @since 0.1.0
 * @category generation
 */
export const generateDhchap = (options?: {
  readonly hash?: "none" | "sha256" | "sha384" | "sha512" | undefined
}): Effect.Effect<Redacted.Redacted<string>> =>
  Effect.sync(() => Redacted.make(randomDhchap(options?.hash ?? "sha256")))

/** The name of a key. A string is returned unchanged. @since 0.1.0 @category accessors */
export const keyName = (key: KeyInput): string => (typeof key === "string" ? key : key.name)

const nameOf = (operation: string, name: string | undefined): Effect.Effect<string, SpdkError<InvalidArgument>> => {
  if (name === undefined) return Effect.succeed(generatedName("key"))
  return name === "" || name.includes("\0")
    ? failInvalid(operation, "name", "is empty or contains a NUL character", name)
    : Effect.succeed(name)
}

const contentOf = (options: AddOptions): Effect.Effect<string | Uint8Array, SpdkError<InvalidArgument>> => {
  const refuse = (field: string, rule: string) => failInvalid("Keyring.add", field, rule)
  if (options.secret !== undefined && options.bytes !== undefined) {
    return refuse("secret", "excludes bytes: give one of them")
  }
  if (options.bytes !== undefined) {
    const bytes = Redacted.value(options.bytes)
    return bytes.length === 0 ? refuse("bytes", "are none") : Effect.succeed(bytes)
  }
  if (options.secret === undefined) return refuse("secret", "is missing; give secret or bytes")
  // A line break behind it is what editors and shells leave.
  const secret = Redacted.value(options.secret).replace(/\r?\n$/, "")
  const rule = keyTextRule(secret)
  return rule === undefined ? Effect.succeed(secret) : refuse("secret", rule)
}

const addPath = (name: string, file: string): Effect.Effect<Key, KeyringError, RpcClient | Scope.Scope> =>
  Effect.flatMap(RpcClient, (rpc) =>
    Effect.acquireRelease(
      Rpc.callWith(rpc, "keyring_file_add_key", { name, path: file }).pipe(
        Effect.catch((error) => Effect.flatMap(explain(rpc, name, file, error), Effect.fail)),
        Effect.as({ name })
      ),
      () =>
        withinLimitByRpc(
          "Keyring.remove",
          name,
          Effect.catch(Effect.asVoid(Rpc.callWith(rpc, "keyring_file_remove_key", { name })), (error) =>
            error.reason._tag === "NotFound" ? Effect.void : Effect.die(error)
          )
        )
    )
  )

/** SPDK answers "Operation not permitted" for every fault of the file, and for a name that is taken. */
const explain = (
  rpc: RpcClient["Service"],
  name: string,
  file: string,
  error: KeyringError
): Effect.Effect<KeyringError> =>
  callDecoded(rpc, Schema.Array(KeyInfo), "keyring_get_keys").pipe(
    Effect.map((keys) =>
      keys.some((key) => key.name === name && !key.removed)
        ? new SpdkError({ reason: new AlreadyExists({ operation: "keyring_file_add_key", resource: name }) })
        : error.reason._tag === "PermissionDenied"
          ? fromErrno(-1, {
              operation: "keyring_file_add_key",
              resource: name,
              detail: `SPDK requires that its own user owns the key file, and that no other user may read the file: ${file}`
            })
          : error
    ),
    Effect.catch(() => Effect.succeed(error))
  )

const privateFile = (content: string | Uint8Array): Effect.Effect<string, KeyringError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const directory = await fs.mkdtemp(path.join(os.tmpdir(), "spdk-key-"))
        const file = path.join(directory, "key")
        try {
          await fs.writeFile(file, content, { mode: 0o600, flag: "wx" })
        } catch (cause) {
          await fs.rm(directory, { recursive: true, force: true })
          throw cause
        }
        return { directory, file }
      },
      catch: (cause): KeyringError => {
        const context = { operation: "Keyring.add", cause }
        const errno = cause instanceof Error && "errno" in cause ? cause.errno : undefined
        return typeof errno === "number" ? fromErrno(errno, context) : new SpdkError({ reason: new IoFailed(context) })
      }
    }),
    ({ directory }) => Effect.promise(() => fs.rm(directory, { recursive: true, force: true }))
  ).pipe(Effect.map(({ file }) => file))
