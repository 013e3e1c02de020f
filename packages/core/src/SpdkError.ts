/**
 * The error type of this project: a `SpdkError` with a `reason`. The type of an operation names its reasons, for
 * example `SpdkError<NoMemory | Released>`. A service that handles those reasons has handled every error.
 *
 * @since 0.1.0
 */
import { Detail } from "@effect-spdk/native/Layout"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { errnoName, maxErrno } from "./internal/common/errno.ts"
import { errnoOfText } from "./internal/rpc/errorText.ts"
import * as R from "./SpdkErrorReason.ts"

export * from "./SpdkErrorReason.ts"

const TypeId = "~effect-spdk/SpdkError"

/**
 * A failed operation. `message` is one line with the operation, the resource, the reason and the evidence: `Bdev.write
 * on "disk0": InvalidArgument: offsetBytes 17 is not a multiple of the block size 512`.
 *
 * The schema encodes and decodes every reason.
 *
 * @since 0.1.0
 * @category errors
 */
export class SpdkError<A extends R.Reason = R.Reason> extends Schema.TaggedError<SpdkError>("SpdkError")("SpdkError", {
  reason: R.Reason
}) {
  declare readonly reason: A

  constructor(props: { readonly reason: A }, options?: Schema.MakeOptions) {
    super(props, options)
    // As an own property that is not enumerable, which is what `new Error(message, { cause })` makes.
    if (props.reason.cause !== undefined) {
      Object.defineProperty(this, "cause", { value: props.reason.cause, configurable: true, writable: true })
    }
  }

  get [TypeId](): typeof TypeId {
    return TypeId
  }

  override get message(): string {
    return this.reason.message
  }

  /** Whether the same call can succeed later: `Effect.retry({ while: (error) => error.isRetryable, schedule })`. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
}

/** The tag of a reason. @since 0.1.0 @category models */
export type ReasonTag = R.Reason["_tag"]

/** The error by the names of its reasons: `SpdkErrorOf<"NoMemory" | "Released">`. @since 0.1.0 @category models */
export type SpdkErrorOf<Tag extends ReasonTag> = SpdkError<Extract<R.Reason, { readonly _tag: Tag }>>

/** The reasons that an errno can become. @since 0.1.0 @category models */
export type ErrnoReason =
  | R.Aborted
  | R.AlreadyExists
  | R.Busy
  | R.DeviceRemoved
  | R.InvalidArgument
  | R.IoFailed
  | R.NoMemory
  | R.NoSpace
  | R.NotFound
  | R.NotSupported
  | R.PermissionDenied
  | R.ReadOnly
  | R.Released
  | R.TimedOut

/** The reasons that the completion of an I/O can become. @since 0.1.0 @category models */
export type IoReason = ErrnoReason | R.Miscompare

/** The reasons that an error answer of an RPC server can become. @since 0.1.0 @category models */
export type RpcCodeReason = ErrnoReason | R.MethodNotFound | R.RpcFailed

/** The reasons that a call of an RPC method can fail with. @since 0.1.0 @category models */
export type RpcReason = RpcCodeReason | R.RpcUnreachable | R.RpcProtocol

/**
 * The context of an error.
 *
 * @since 0.1.0
 * @category models
 */
export interface ErrorContext {
  readonly operation: string
  readonly resource?: string | undefined
  readonly detail?: string | undefined
  readonly cause?: unknown
}

/** @since 0.1.0 @category guards */
export const isSpdkError = (u: unknown): u is SpdkError => Predicate.hasProperty(u, TypeId)

/**
 * The error for a mistake of the caller: `invalid("Bdev.write", "offsetBytes", "is not a multiple of the block size
 * 512", 17)`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const invalid = (
  operation: string,
  field: string,
  rule: string,
  value?: unknown,
  resource?: string
): SpdkError<R.InvalidArgument> =>
  new SpdkError({
    reason: new R.InvalidArgument({ operation, field, rule, value: showValue(value), resource })
  })

/** `invalid` as a failed Effect. @since 0.1.0 @category constructors */
export const failInvalid = (
  operation: string,
  field: string,
  rule: string,
  value?: unknown,
  resource?: string
): Effect.Effect<never, SpdkError<R.InvalidArgument>> => Effect.fail(invalid(operation, field, rule, value, resource))

/**
 * The error for a use after the scope has closed: `released("Bdev.read", "buffer")`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const released = (operation: string, what: string, resource?: string): SpdkError<R.Released> =>
  new SpdkError({ reason: new R.Released({ operation, what, resource }) })

/** A failed Effect with this reason. @since 0.1.0 @category constructors */
export const fail = <A extends R.Reason>(reason: A): Effect.Effect<never, SpdkError<A>> =>
  Effect.fail(new SpdkError({ reason }))

/**
 * The error for a negative errno. A number without a reason of its own becomes `IoFailed`, which carries the number.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromErrno = (errnoNegative: number, context: ErrorContext): SpdkError<ErrnoReason> =>
  new SpdkError({ reason: errnoReason(errnoNegative, context) })

/**
 * The error for an NVMe status.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromNvme = (sct: number, sc: number, dnr: boolean, context: ErrorContext): SpdkError<IoReason> =>
  new SpdkError({ reason: nvmeReason({ sct, sc, dnr }, context) })

/**
 * The error for an error answer of SPDK's RPC server. SPDK mixes JSON-RPC's codes with negative errnos. -1 is EPERM
 * only when the text is EPERM's; otherwise SPDK means "wrong state for this method". With JSON-RPC's codes "invalid
 * params" and "internal error", the text often names an errno. That errno then decides.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromRpcCode = (
  method: string,
  code: number,
  message: string,
  data?: Schema.Json,
  resource?: string
): SpdkError<RpcCodeReason> => {
  const context = { operation: method, resource, rpcCode: code }
  if (code === -32601) return new SpdkError({ reason: new R.MethodNotFound({ ...context, method }) })
  const isErrno = Number.isInteger(code) && code < 0 && code >= -maxErrno
  const errno = isErrno && (code !== -1 || message === "Operation not permitted") ? -code : errnoNamed(code, message)
  const reason = errno === undefined ? undefined : errnoReason(-errno, { ...context, detail: message })
  // Without an errno of its own "invalid params" is about the parameters, and so is an errno that says so in the text.
  const isAboutParams = reason === undefined ? code === -32602 : !isErrno && reason._tag === "InvalidArgument"
  if (isAboutParams || refusedParams.has(message)) {
    const rule = `refused by the server: ${message}`
    return new SpdkError({ reason: new R.InvalidArgument({ ...context, field: "params", rule }) })
  }
  if (reason !== undefined && reason._tag !== "IoFailed") return new SpdkError({ reason })
  const fields = errno === undefined ? undefined : errnoFields(errno)
  return new SpdkError({ reason: new R.RpcFailed({ ...context, ...fields, method, code, rpcMessage: message, data }) })
}

/** The answers with which many methods refuse parameters that they cannot decode, under three codes. */
const refusedParams: ReadonlySet<string> = new Set([
  "spdk_json_decode_object failed",
  "spdk_json_decode_object failed."
])

/** The errno that the text of an answer names, for JSON-RPC's own codes. */
const errnoNamed = (code: number, message: string): number | undefined =>
  code === -32602 || code === -32603 ? errnoOfText(message) : undefined

/**
 * The error for a completion with a status other than 0. `detail` (a `Layout.Detail`) tells why the engine refused the
 * entry. Without a detail, the device answered. The NVMe status, encoded as in `Layout.Cqe`, is then more precise than
 * the errno.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromCompletion = (
  status: number,
  detail: number,
  nvme: number,
  context: ErrorContext
): SpdkError<IoReason> => {
  if (detail !== Detail.None) return new SpdkError({ reason: detailReason(status, detail, context) })
  if (nvme !== 0) {
    return fromNvme((nvme >>> 8) & 0xff, nvme & 0xff, (nvme & 0x20000) !== 0, context)
  }
  const reason = errnoReason(status, context)
  // A device was there when its channel was opened.
  return new SpdkError({
    reason: reason._tag === "NotFound" ? new R.DeviceRemoved({ ...context, ...errnoFields(status) }) : reason
  })
}

/** The handlers of `handleReasons`, by reason. @since 0.1.0 @category models */
export type ReasonHandlers<A extends R.Reason> = {
  readonly [Tag in A["_tag"]]?: (
    reason: Extract<A, { readonly _tag: Tag }>,
    error: SpdkError<Extract<A, { readonly _tag: Tag }>>
  ) => Effect.Effect<unknown, unknown, unknown>
}

/** The reasons of the `SpdkError`s in `E`. @since 0.1.0 @category models */
export type ReasonOf<E> = E extends SpdkError<infer A> ? A : never

type HandlerEffect<Handlers> = {
  [Tag in keyof Handlers]: Handlers[Tag] extends (...args: Array<never>) => infer X ? X : never
}[keyof Handlers]

type Remaining<E, Tag> =
  E extends SpdkError<infer A>
    ? [Exclude<A, { readonly _tag: Tag }>] extends [never]
      ? never
      : SpdkError<Exclude<A, { readonly _tag: Tag }>>
    : E

/**
 * Handles reasons by name and removes them from the error type. When every reason is handled, no error remains.
 * `Effect.catchReasons` keeps the whole `SpdkError` in the type unless the call has a handler for the other reasons.
 *
 * @since 0.1.0
 * @category error handling
 */
export const handleReasons: {
  <E, const Handlers extends ReasonHandlers<ReasonOf<NoInfer<E>>>>(
    handlers: Handlers
  ): <A, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<
    A | Effect.Success<HandlerEffect<Handlers>>,
    Remaining<E, keyof Handlers> | Effect.Error<HandlerEffect<Handlers>>,
    R | Effect.Services<HandlerEffect<Handlers>>
  >
  <A, E, R, const Handlers extends ReasonHandlers<ReasonOf<E>>>(
    self: Effect.Effect<A, E, R>,
    handlers: Handlers
  ): Effect.Effect<
    A | Effect.Success<HandlerEffect<Handlers>>,
    Remaining<E, keyof Handlers> | Effect.Error<HandlerEffect<Handlers>>,
    R | Effect.Services<HandlerEffect<Handlers>>
  >
} = dual(
  2,
  (
    self: Effect.Effect<unknown, unknown, unknown>,
    handlers: Record<
      string,
      ((reason: R.Reason, error: SpdkError) => Effect.Effect<unknown, unknown, unknown>) | undefined
    >
  ) =>
    Effect.catch(self, (error) => {
      const handler = isSpdkError(error) ? handlers[error.reason._tag] : undefined
      return handler === undefined || !isSpdkError(error) ? Effect.fail(error) : handler(error.reason, error)
    })
)

const errnoFields = (errnoNegative: number) => ({
  errno: errnoName(Math.abs(errnoNegative)),
  errnoCode: Math.abs(errnoNegative)
})

const errnoReason = (errnoNegative: number, context: ErrorContext & { readonly rpcCode?: number }): ErrnoReason => {
  const fields = { ...context, ...errnoFields(errnoNegative) }
  switch (fields.errno) {
    case "EPERM":
    case "EACCES":
      return new R.PermissionDenied(fields)
    case "ENOENT":
    case "ENXIO":
    case "ENODEV":
      return new R.NotFound(fields)
    case "EEXIST":
      return new R.AlreadyExists(fields)
    case "EAGAIN":
    case "EBUSY":
    case "EALREADY":
    case "EINPROGRESS":
      return new R.Busy(fields)
    case "ENOMEM":
    case "ENOBUFS":
      return new R.NoMemory(fields)
    case "ENOSPC":
    case "EDQUOT":
      return new R.NoSpace(fields)
    case "EROFS":
      return new R.ReadOnly(fields)
    case "ENOSYS":
    case "ENOTSUP":
      return new R.NotSupported(fields)
    case "EBADF":
      return new R.Released({ ...fields, what: "handle" })
    case "ESHUTDOWN":
      return new R.DeviceRemoved(fields)
    case "ETIMEDOUT":
      return new R.TimedOut(fields)
    case "ECANCELED":
      return new R.Aborted(fields)
    case "E2BIG":
    case "EFAULT":
    case "EINVAL":
    case "EDOM":
    case "ERANGE":
    case "ENAMETOOLONG":
      return new R.InvalidArgument({ ...fields, field: "arguments", rule: "refused by SPDK" })
    default:
      return new R.IoFailed(fields)
  }
}

const nvmeReason = (nvme: R.NvmeStatus, context: ErrorContext): IoReason => {
  const fields = { ...context, nvme }
  // Status code type and status code as the NVMe base specification numbers them.
  switch ((nvme.sct << 8) | nvme.sc) {
    case 0x001:
      return new R.NotSupported(fields)
    case 0x002:
    // A log page that there is not; a feature that cannot be saved, changed, or set per namespace.
    case 0x109:
    case 0x10d:
    case 0x10e:
    case 0x10f:
      return new R.InvalidArgument({ ...fields, field: "command", rule: "has a field that the device refuses" })
    case 0x005:
    case 0x007:
    case 0x008:
    case 0x009:
    case 0x00a:
    case 0x01b:
    case 0x371:
      return new R.Aborted(fields)
    case 0x00b:
      return new R.NotFound(fields)
    case 0x015:
    case 0x286:
      return new R.PermissionDenied(fields)
    case 0x020:
    case 0x182:
      return new R.ReadOnly(fields)
    case 0x080:
      return new R.InvalidArgument({ ...fields, field: "range", rule: "lies outside the device" })
    case 0x081:
      return new R.NoSpace(fields)
    case 0x083:
      return new R.Busy(fields)
    case 0x285:
      return new R.Miscompare(fields)
    default:
      return new R.IoFailed(fields)
  }
}

/** The detail of an error from a stopped blobstore. */
export const stoppedDetail =
  "a metadata write of the blobstore has failed: the store accepts no writes until it is loaded again"

const detailReason = (status: number, detail: number, context: ErrorContext): IoReason => {
  const argument = (field: string, rule: string) => new R.InvalidArgument({ ...context, field, rule })
  switch (detail) {
    case Detail.UnknownOpcode:
      return argument("opcode", "is not known to the engine")
    case Detail.StaleChannel:
    case Detail.Closing:
      return new R.Released({ ...context, what: "channel" })
    case Detail.StaleSlab:
      return new R.Released({ ...context, what: "buffer" })
    case Detail.SlabRange:
      return argument("buffer", "does not contain the range")
    case Detail.Misaligned:
      return argument("buffer", "is not aligned as the bdev requires")
    case Detail.BlockRange:
      return argument("range", "lies outside the bdev")
    case Detail.ReadOnly:
      return new R.ReadOnly(context)
    case Detail.NotSupported:
      return new R.NotSupported(context)
    case Detail.Removed:
      return new R.DeviceRemoved(context)
    case Detail.TooManySegments:
      return argument("buffers", "are more than one request can carry")
    case Detail.UnknownTarget:
      return new R.NotFound(context)
    case Detail.Stopped:
      return new R.IoFailed({ ...context, detail: stoppedDetail })
    case Detail.LengthMismatch:
      return argument("lengthBytes", "differs from the length of the range in blocks")
    default:
      return errnoReason(status, context)
  }
}

const showValue = (value: unknown): string | number | boolean | undefined => {
  if (value === undefined || typeof value === "number" || typeof value === "boolean") return value
  if (typeof value === "bigint") return `${value}`
  let text: string
  try {
    text = typeof value === "string" ? value : (JSON.stringify(value) ?? typeof value)
  } catch {
    text = typeof value
  }
  return text.length > 200 ? `${text.slice(0, 200)}...` : text
}
