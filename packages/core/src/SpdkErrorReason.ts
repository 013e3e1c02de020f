/**
 * The reasons of a failed SPDK operation. Match on `_tag`, or use `Effect.catchReason("SpdkError", "NoSpace", ...)`.
 * Import the reasons from `SpdkError`, which exports this module.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The NVMe status of a failed command: status code type, status code, and the "do not retry" bit.
 *
 * @since 0.1.0
 * @category models
 */
export const NvmeStatus = Schema.Struct({ sct: Schema.Int, sc: Schema.Int, dnr: Schema.Boolean })
export type NvmeStatus = typeof NvmeStatus.Type

const common = {
  /** The operation: `Bdev.write`, or the name of an RPC method. */
  operation: Schema.String,
  /** The resource of the operation: the name of a bdev, a thread, a path. */
  resource: Schema.optional(Schema.String),
  /** Further details, in SPDK's words when SPDK sent any. */
  detail: Schema.optional(Schema.String),
  /** The name of the errno, for example `ENOMEM`. */
  errno: Schema.optional(Schema.String),
  /** The positive number of the errno, for example 12. */
  errnoCode: Schema.optional(Schema.Int),
  nvme: Schema.optional(NvmeStatus),
  /** The code of the JSON-RPC error, when the reason comes from one. */
  rpcCode: Schema.optional(Schema.Number),
  cause: Schema.optional(Schema.Defect())
}

interface Common {
  readonly _tag: string
  readonly operation: string
  readonly resource?: string | undefined
  readonly detail?: string | undefined
  readonly errno?: string | undefined
  readonly nvme?: NvmeStatus | undefined
}

const hex = (byte: number) => `0x${byte.toString(16).padStart(2, "0")}`

/** Messages are for people and show only the start of a long name. Fields keep the whole name. */
const shorten = (text: string, maxCharacters: number): string =>
  text.length <= maxCharacters
    ? text
    : `${text.slice(0, maxCharacters).replace(/[\ud800-\udbff]$/, "")}... (${text.length} characters)`

const maxNameCharacters = 200
const maxTextCharacters = 1000

const describe = (reason: Common, words: string): string => {
  const text = shorten(words, maxTextCharacters)
  const notes: Array<string> = []
  if (reason.detail !== undefined && reason.detail !== words) notes.push(shorten(reason.detail, maxTextCharacters))
  if (reason.errno !== undefined) notes.push(reason.errno)
  if (reason.nvme !== undefined) {
    const { dnr, sc, sct } = reason.nvme
    notes.push(`NVMe status ${hex(sct)}/${hex(sc)}${dnr ? ", do not retry" : ""}`)
  }
  const resource = reason.resource === undefined ? "" : ` on "${shorten(reason.resource, maxNameCharacters)}"`
  return `${shorten(reason.operation, maxNameCharacters)}${resource}: ${reason._tag}: ${text}${notes.length === 0 ? "" : ` (${notes.join("; ")})`}`
}

/** Whether the device allows a retry. */
const mayRetry = (status: NvmeStatus | undefined): boolean => status === undefined || !status.dnr

/**
 * NVMe statuses of transient conditions: transport and path errors, a namespace or medium that is not ready yet, an
 * interrupted command. Status 0/0x06, internal device error, does not count. SPDK uses it when a bdev module has no
 * more precise status.
 */
const isTransient = ({ dnr, sc, sct }: NvmeStatus): boolean => {
  if (dnr) return false
  if (sct === 0) return sc === 0x04 || sc === 0x1d || sc === 0x21 || sc === 0x22 || sc === 0x24 || sc === 0x82
  return sct === 3 && sc !== 0x01
}

/**
 * A mistake of the caller. `rule` follows field and value: "is not a multiple of the block size 512".
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidArgument extends Schema.TaggedError<InvalidArgument>("SpdkError/InvalidArgument")(
  "InvalidArgument",
  {
    ...common,
    field: Schema.String,
    rule: Schema.String,
    value: Schema.optional(Schema.Union([Schema.String, Schema.Number, Schema.Boolean]))
  }
) {
  override get message(): string {
    const value = typeof this.value === "string" ? JSON.stringify(this.value) : this.value
    return describe(this, `${this.field}${value === undefined ? "" : ` ${value}`} ${this.rule}`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** No resource has that name. @since 0.1.0 @category errors */
export class NotFound extends Schema.TaggedError<NotFound>("SpdkError/NotFound")("NotFound", common) {
  override get message(): string {
    return describe(this, this.detail ?? "no resource has that name")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** Another resource has that name. @since 0.1.0 @category errors */
export class AlreadyExists extends Schema.TaggedError<AlreadyExists>("SpdkError/AlreadyExists")(
  "AlreadyExists",
  common
) {
  override get message(): string {
    return describe(this, this.detail ?? "it exists already")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** Permissions refuse the operation. @since 0.1.0 @category errors */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>("SpdkError/PermissionDenied")(
  "PermissionDenied",
  common
) {
  override get message(): string {
    return describe(this, this.detail ?? "not permitted")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** A write to a resource that is read-only, or was opened read-only. @since 0.1.0 @category errors */
export class ReadOnly extends Schema.TaggedError<ReadOnly>("SpdkError/ReadOnly")("ReadOnly", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the resource is read-only")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** Another user holds the resource now. @since 0.1.0 @category errors */
export class Busy extends Schema.TaggedError<Busy>("SpdkError/Busy")("Busy", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the resource is in use")
  }
  get isRetryable(): boolean {
    return mayRetry(this.nvme)
  }
}

/**
 * Memory, or one of SPDK's pools, is exhausted. Memory returns when other users release theirs.
 *
 * @since 0.1.0
 * @category errors
 */
export class NoMemory extends Schema.TaggedError<NoMemory>("SpdkError/NoMemory")("NoMemory", common) {
  override get message(): string {
    return describe(this, this.detail ?? "no memory is available")
  }
  get isRetryable(): boolean {
    return true
  }
}

/** The device has no free space. @since 0.1.0 @category errors */
export class NoSpace extends Schema.TaggedError<NoSpace>("SpdkError/NoSpace")("NoSpace", common) {
  override get message(): string {
    return describe(this, this.detail ?? "no space is left")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The device, the module or the engine does not support the operation. @since 0.1.0 @category errors */
export class NotSupported extends Schema.TaggedError<NotSupported>("SpdkError/NotSupported")("NotSupported", common) {
  override get message(): string {
    return describe(this, this.detail ?? "not supported")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The device was removed while a handle was open. @since 0.1.0 @category errors */
export class DeviceRemoved extends Schema.TaggedError<DeviceRemoved>("SpdkError/DeviceRemoved")(
  "DeviceRemoved",
  common
) {
  override get message(): string {
    return describe(this, this.detail ?? "the device was removed")
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * A use after the scope has closed. `what` names the resource: a buffer, a handle, a thread.
 *
 * @since 0.1.0
 * @category errors
 */
export class Released extends Schema.TaggedError<Released>("SpdkError/Released")("Released", {
  ...common,
  what: Schema.String
}) {
  override get message(): string {
    return describe(this, `the ${this.what} has already been released`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The operation was aborted before it finished: on request, by a reset, or by the end of a queue.
 *
 * @since 0.1.0
 * @category errors
 */
export class Aborted extends Schema.TaggedError<Aborted>("SpdkError/Aborted")("Aborted", common) {
  override get message(): string {
    return describe(this, this.detail ?? "it was aborted")
  }
  get isRetryable(): boolean {
    return mayRetry(this.nvme)
  }
}

/** A time limit passed. The operation may or may not have taken effect. @since 0.1.0 @category errors */
export class TimedOut extends Schema.TaggedError<TimedOut>("SpdkError/TimedOut")("TimedOut", {
  ...common,
  /** Absent when the limit was the device's. */
  limitMillis: Schema.optional(Schema.Number)
}) {
  override get message(): string {
    return describe(this, `no answer${this.limitMillis === undefined ? " in time" : ` within ${this.limitMillis} ms`}`)
  }
  get isRetryable(): boolean {
    return true
  }
}

/** The errnos of a connection that does not exist or no longer exists. The peer may come back. */
const connectionErrnos: ReadonlySet<string> = new Set([
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETRESET",
  "ENETUNREACH",
  "ENOTCONN",
  "EPIPE"
])

/**
 * The device failed the I/O, or there is no connection to the device. Retryable when the NVMe status is transient, or
 * when the errno is that of a connection: ECONNREFUSED, ECONNRESET, ENOTCONN and others.
 *
 * @since 0.1.0
 * @category errors
 */
export class IoFailed extends Schema.TaggedError<IoFailed>("SpdkError/IoFailed")("IoFailed", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the device failed the operation")
  }
  get isRetryable(): boolean {
    return this.nvme === undefined ? connectionErrnos.has(this.errno ?? "") : isTransient(this.nvme)
  }
}

/** A compare found different data. @since 0.1.0 @category errors */
export class Miscompare extends Schema.TaggedError<Miscompare>("SpdkError/Miscompare")("Miscompare", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the data differs")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The RPC server has no such method. @since 0.1.0 @category errors */
export class MethodNotFound extends Schema.TaggedError<MethodNotFound>("SpdkError/MethodNotFound")("MethodNotFound", {
  ...common,
  method: Schema.String
}) {
  override get message(): string {
    return describe(this, this.detail ?? `this SPDK has no method "${shorten(this.method, maxNameCharacters)}"`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The RPC server refused with a code that has no reason of its own. @since 0.1.0 @category errors */
export class RpcFailed extends Schema.TaggedError<RpcFailed>("SpdkError/RpcFailed")("RpcFailed", {
  ...common,
  method: Schema.String,
  code: Schema.Number,
  rpcMessage: Schema.String,
  data: Schema.optional(Schema.Json)
}) {
  override get message(): string {
    return describe(this, `${this.rpcMessage}, code ${this.code}`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * There is no connection to the RPC server, or the connection broke before the answer. In the second case, the call may
 * or may not have taken effect. The client never resends such a call.
 *
 * @since 0.1.0
 * @category errors
 */
export class RpcUnreachable extends Schema.TaggedError<RpcUnreachable>("SpdkError/RpcUnreachable")("RpcUnreachable", {
  ...common,
  address: Schema.String
}) {
  override get message(): string {
    return describe(this, this.detail ?? `cannot reach the RPC server at ${this.address}`)
  }
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The RPC server violated JSON-RPC 2.0, or its answer has a shape that SPDK does not have.
 *
 * @since 0.1.0
 * @category errors
 */
export class RpcProtocol extends Schema.TaggedError<RpcProtocol>("SpdkError/RpcProtocol")("RpcProtocol", {
  ...common,
  rule: Schema.String
}) {
  override get message(): string {
    return describe(this, this.rule)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The requested engine is not available on this machine. @since 0.1.0 @category errors */
export class EngineUnavailable extends Schema.TaggedError<EngineUnavailable>("SpdkError/EngineUnavailable")(
  "EngineUnavailable",
  { ...common, engine: Schema.String, lookedFor: Schema.Array(Schema.String) }
) {
  override get message(): string {
    const places = this.lookedFor.length === 0 ? "" : `; looked for ${this.lookedFor.join(", ")}`
    return describe(this, `the engine ${this.engine} is not available${places}`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** SPDK already runs in this process with another value of `option`. @since 0.1.0 @category errors */
export class OptionsClash extends Schema.TaggedError<OptionsClash>("SpdkError/OptionsClash")("OptionsClash", {
  ...common,
  option: Schema.String,
  running: Schema.String,
  requested: Schema.String
}) {
  override get message(): string {
    return describe(
      this,
      `SPDK already runs in this process with ${this.option} ${this.running}, which cannot become ${this.requested}`
    )
  }
  get isRetryable(): boolean {
    return false
  }
}

/** SPDK did not start. @since 0.1.0 @category errors */
export class StartFailed extends Schema.TaggedError<StartFailed>("SpdkError/StartFailed")("StartFailed", common) {
  override get message(): string {
    return describe(this, this.detail ?? "SPDK did not start")
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * SPDK refused one call of a JSON configuration. `index` counts the calls of all subsystems, from 0.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConfigRejected extends Schema.TaggedError<ConfigRejected>("SpdkError/ConfigRejected")("ConfigRejected", {
  ...common,
  method: Schema.String,
  index: Schema.Int,
  code: Schema.Number
}) {
  override get message(): string {
    return describe(
      this,
      `SPDK refused call ${this.index} of the configuration, ${this.method}, with code ${this.code}`
    )
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The content of the device does not follow its format: it has another format, another version, or is damaged. `where`
 * names the structure and, when known, its place.
 *
 * @since 0.1.0
 * @category errors
 */
export class Corrupted extends Schema.TaggedError<Corrupted>("SpdkError/Corrupted")("Corrupted", {
  ...common,
  where: Schema.String,
  rule: Schema.String
}) {
  override get message(): string {
    return describe(this, `${this.where} ${this.rule}`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The device holds a blobstore of another type. @since 0.1.0 @category errors */
export class WrongType extends Schema.TaggedError<WrongType>("SpdkError/WrongType")("WrongType", {
  ...common,
  expected: Schema.String,
  found: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const found = this.found === undefined ? "" : `, and not "${this.found}"`
    return describe(this, `the type is expected to be "${this.expected}"${found}`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The schema of every reason.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Reason = Schema.Union([
  InvalidArgument,
  NotFound,
  AlreadyExists,
  PermissionDenied,
  ReadOnly,
  Busy,
  NoMemory,
  NoSpace,
  NotSupported,
  DeviceRemoved,
  Released,
  Aborted,
  TimedOut,
  IoFailed,
  Miscompare,
  MethodNotFound,
  RpcFailed,
  RpcUnreachable,
  RpcProtocol,
  EngineUnavailable,
  OptionsClash,
  StartFailed,
  ConfigRejected,
  Corrupted,
  WrongType
])
export type Reason = typeof Reason.Type
