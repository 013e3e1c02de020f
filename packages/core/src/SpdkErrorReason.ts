/**
 * The reasons an SPDK operation can fail with. For those who handle errors: match on `_tag`, or let
 * `Effect.catchReason("SpdkError", "NoSpace", ...)` do it. Import them from `SpdkError`, which exports all of this.
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
  /** What was asked for: `Bdev.write`, or the name of an RPC method. */
  operation: Schema.String,
  /** What it was asked of: the name of a bdev, a thread, a path. */
  resource: Schema.optional(Schema.String),
  /** More words, of SPDK where it sent any. */
  detail: Schema.optional(Schema.String),
  /** `ENOMEM` */
  errno: Schema.optional(Schema.String),
  /** Positive: 12 */
  errnoCode: Schema.optional(Schema.Int),
  nvme: Schema.optional(NvmeStatus),
  /** The code of the JSON-RPC error that this was made of. */
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

/** A message is for people: of a name of 400,000 characters they need the beginning. Fields keep all of it. */
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

/** Whether the device leaves a retry open. */
const mayRetry = (status: NvmeStatus | undefined): boolean => status === undefined || !status.dnr

/**
 * NVMe statuses that pass by themselves: transport and path trouble, a namespace or a medium that is not ready yet,
 * a command that was interrupted. 0/0x06, internal device error, is not among them, because SPDK says it whenever
 * a bdev module has no better word.
 */
const isTransient = ({ dnr, sc, sct }: NvmeStatus): boolean => {
  if (dnr) return false
  if (sct === 0) return sc === 0x04 || sc === 0x1d || sc === 0x21 || sc === 0x22 || sc === 0x24 || sc === 0x82
  return sct === 3 && sc !== 0x01
}

/**
 * A caller's mistake. `rule` goes on after field and value: "is not a multiple of the block size 512".
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

/** There is nothing of that name. @since 0.1.0 @category errors */
export class NotFound extends Schema.TaggedError<NotFound>("SpdkError/NotFound")("NotFound", common) {
  override get message(): string {
    return describe(this, this.detail ?? "there is no such thing")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The name is taken. @since 0.1.0 @category errors */
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

/** Refused by permissions, or by a claim that another module holds. @since 0.1.0 @category errors */
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

/** A write to something open or protected as read-only. @since 0.1.0 @category errors */
export class ReadOnly extends Schema.TaggedError<ReadOnly>("SpdkError/ReadOnly")("ReadOnly", common) {
  override get message(): string {
    return describe(this, this.detail ?? "it is read-only")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** Somebody else uses it now. @since 0.1.0 @category errors */
export class Busy extends Schema.TaggedError<Busy>("SpdkError/Busy")("Busy", common) {
  override get message(): string {
    return describe(this, this.detail ?? "it is in use")
  }
  get isRetryable(): boolean {
    return mayRetry(this.nvme)
  }
}

/** Memory, or a pool of SPDK's, is exhausted; it comes back when others release theirs. @since 0.1.0 @category errors */
export class NoMemory extends Schema.TaggedError<NoMemory>("SpdkError/NoMemory")("NoMemory", common) {
  override get message(): string {
    return describe(this, this.detail ?? "no memory is free for it")
  }
  get isRetryable(): boolean {
    return true
  }
}

/** The device is full. @since 0.1.0 @category errors */
export class NoSpace extends Schema.TaggedError<NoSpace>("SpdkError/NoSpace")("NoSpace", common) {
  override get message(): string {
    return describe(this, this.detail ?? "no space is left")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The device, the module or the engine cannot do it. @since 0.1.0 @category errors */
export class NotSupported extends Schema.TaggedError<NotSupported>("SpdkError/NotSupported")("NotSupported", common) {
  override get message(): string {
    return describe(this, this.detail ?? "not supported")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The device went away under an open handle. @since 0.1.0 @category errors */
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

/** `what` (a buffer, a handle, a thread) was used after its scope had closed. @since 0.1.0 @category errors */
export class Released extends Schema.TaggedError<Released>("SpdkError/Released")("Released", {
  ...common,
  what: Schema.String
}) {
  override get message(): string {
    return describe(this, `the ${this.what} is released already`)
  }
  get isRetryable(): boolean {
    return false
  }
}

/** Aborted before it finished: on request, or by a reset or the end of a queue. @since 0.1.0 @category errors */
export class Aborted extends Schema.TaggedError<Aborted>("SpdkError/Aborted")("Aborted", common) {
  override get message(): string {
    return describe(this, this.detail ?? "it was aborted")
  }
  get isRetryable(): boolean {
    return mayRetry(this.nvme)
  }
}

/** A time limit passed; whether the operation took effect is not known. @since 0.1.0 @category errors */
export class TimedOut extends Schema.TaggedError<TimedOut>("SpdkError/TimedOut")("TimedOut", {
  ...common,
  /** Absent when the limit was the device's own. */
  limitMillis: Schema.optional(Schema.Number)
}) {
  override get message(): string {
    return describe(this, `no answer${this.limitMillis === undefined ? " in time" : ` within ${this.limitMillis} ms`}`)
  }
  get isRetryable(): boolean {
    return true
  }
}

/** What a connection says that is not there, or not any more. Whoever is at its other end may come back. */
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
 * The device failed the I/O, or there is no connection to it. Retryable when its NVMe status is one that passes, and when the errno
 * is a connection's: ECONNREFUSED, ECONNRESET, ENOTCONN and the like.
 *
 * @since 0.1.0
 * @category errors
 */
export class IoFailed extends Schema.TaggedError<IoFailed>("SpdkError/IoFailed")("IoFailed", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the device failed it")
  }
  get isRetryable(): boolean {
    return this.nvme === undefined ? connectionErrnos.has(this.errno ?? "") : isTransient(this.nvme)
  }
}

/** A compare found other data. @since 0.1.0 @category errors */
export class Miscompare extends Schema.TaggedError<Miscompare>("SpdkError/Miscompare")("Miscompare", common) {
  override get message(): string {
    return describe(this, this.detail ?? "the data differs from what was compared with")
  }
  get isRetryable(): boolean {
    return false
  }
}

/** The server has no such RPC method. @since 0.1.0 @category errors */
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

/** The server refused with a code that has no reason of its own. @since 0.1.0 @category errors */
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
 * No connection to the RPC server, or the connection broke before the answer. In the second case whether the
 * call took effect is not known; it is never sent again silently.
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

/** The peer broke JSON-RPC 2.0, or answered in a shape SPDK does not have. @since 0.1.0 @category errors */
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

/** The engine that was asked for is not on this machine. @since 0.1.0 @category errors */
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

/** SPDK runs in this process already, with another value of `option`. @since 0.1.0 @category errors */
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
 * SPDK refused one call of a JSON configuration. `index` counts the calls of all subsystems from 0.
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
 * What lies on the device is not what its format says: it never was of that format, is of another version, or was damaged.
 * `where` names the structure and, where there is one, its place.
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
 * Every reason, as a schema.
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
