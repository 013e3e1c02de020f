/**
 * The address of an NVMe controller: SPDK's transport id as fields, as a string, and as Schemas.
 *
 * ```ts
 * import * as NvmeTransportId from "@effect-spdk/core/NvmeTransportId"
 * import * as Result from "effect/Result"
 *
 * const disk = NvmeTransportId.tcp({ address: "192.0.2.7", subnqn: "nqn.2016-06.io.spdk:disk1" })
 * const same = NvmeTransportId.parse("trtype:TCP traddr:192.0.2.7 subnqn:nqn.2016-06.io.spdk:disk1")
 * console.log(Result.map(disk, NvmeTransportId.format))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import type { NvmeTransportIdFields } from "./internal/engine/nvme.ts"
import {
  addressFamilies,
  type FieldIssue,
  formatTransportId,
  parseTransportId,
  resolveTransportId,
  transportTypes
} from "./internal/nvme/transportId.ts"
import { invalid, type InvalidArgument, type SpdkError } from "./SpdkError.ts"

/**
 * A complete transport id, with SPDK's names. The engines decide which transports they support: libspdk all of them,
 * the embedded engine TCP.
 *
 * @since 0.1.0
 * @category models
 */
export interface TransportId extends NvmeTransportIdFields {}

/** A transport id as input: its string form, or its fields. @since 0.1.0 @category models */
export type Input = string | FieldsInput

/** @since 0.1.0 @category models */
export interface FieldsInput {
  readonly trtype: TransportId["trtype"]
  /** Default: by the form of the address, and IPv4 for a host name. PCIe and vfio-user have none. */
  readonly adrfam?: TransportId["adrfam"]
  /**
   * An IP address or a host name, a PCI address in any form that SPDK reads, or the directory of a vfio-user device.
   */
  readonly traddr: string
  /** The port. Default "4420" for TCP and RDMA. */
  readonly trsvcid?: string | undefined
  /** Default: the discovery subsystem. */
  readonly subnqn?: string | undefined
  /** SPDK's socket priority, 0 to 999. Default 0. */
  readonly priority?: number | undefined
}

/** The result of a constructor. @since 0.1.0 @category models */
export type ParseResult = Result.Result<TransportId, SpdkError<InvalidArgument>>

const answer = (operation: string, result: Result.Result<TransportId, FieldIssue>): ParseResult =>
  Result.mapError(result, ({ field, rule, value }) => invalid(operation, field, rule, value))

/** Checks the fields and fills in the defaults. @since 0.1.0 @category constructors */
export const make = (input: Input): ParseResult =>
  answer("NvmeTransportId.make", typeof input === "string" ? parseTransportId(input) : resolveTransportId(input))

/**
 * Parses the string form of SPDK's programs (`spdk_nvme_transport_id_parse`). Keys may be in any case, followed by `:`
 * or `=`, and separated by white space. Unknown and repeated keys are refused.
 *
 * @since 0.1.0
 * @category conversions
 */
export const parse = (text: string): ParseResult => answer("NvmeTransportId.parse", parseTransportId(text))

/** Formats a transport id as a string. @since 0.1.0 @category conversions */
export const format = (transportId: TransportId): string => formatTransportId(transportId)

/** @since 0.1.0 @category models */
export interface FabricsOptions {
  readonly address: string
  /** Default 4420. */
  readonly port?: number | undefined
  /** Default: the discovery subsystem. */
  readonly subnqn?: string | undefined
  readonly adrfam?: "IPv4" | "IPv6" | "IB" | undefined
  readonly priority?: number | undefined
}

/** The transport id of a subsystem behind NVMe/TCP. @since 0.1.0 @category constructors */
export const tcp = (options: FabricsOptions): ParseResult => fabrics("NvmeTransportId.tcp", "TCP", options)

/** The transport id of a subsystem behind RDMA. @since 0.1.0 @category constructors */
export const rdma = (options: FabricsOptions): ParseResult => fabrics("NvmeTransportId.rdma", "RDMA", options)

/** The transport id of a drive in this machine: `5e:00.0`, `0000:5e:00.0`. @since 0.1.0 @category constructors */
export const pcie = (address: string): ParseResult =>
  answer("NvmeTransportId.pcie", resolveTransportId({ trtype: "PCIe", traddr: address }))

/** The transport id of a vfio-user device, by the directory of its socket. @since 0.1.0 @category constructors */
export const vfioUser = (directory: string): ParseResult =>
  answer("NvmeTransportId.vfioUser", resolveTransportId({ trtype: "VFIOUSER", traddr: directory }))

const fabrics = (operation: string, trtype: "TCP" | "RDMA", options: FabricsOptions): ParseResult => {
  const { adrfam, address, port, priority, subnqn } = options
  if (port !== undefined && (!Number.isInteger(port) || port < 1 || port > 65_535)) {
    return Result.fail(invalid(operation, "port", "is not a whole number from 1 to 65535", port))
  }
  const trsvcid = port === undefined ? undefined : `${port}`
  return answer(operation, resolveTransportId({ trtype, traddr: address, adrfam, trsvcid, subnqn, priority }))
}

const Fields = Schema.Struct({
  trtype: Schema.Literals(transportTypes),
  adrfam: Schema.optional(Schema.Literals(addressFamilies)),
  traddr: Schema.String,
  trsvcid: Schema.String,
  subnqn: Schema.String,
  priority: Schema.Int
})

/** A schema for a complete transport id, with all its rules. @since 0.1.0 @category schemas */
export const TransportId = Fields.check(
  Schema.makeFilter((fields: typeof Fields.Type) => {
    const resolved = resolveTransportId(fields)
    return Result.isSuccess(resolved) ? true : { path: [resolved.failure.field], issue: resolved.failure.rule }
  })
)

/** A schema that decodes the string form of a transport id, and encodes to it. @since 0.1.0 @category schemas */
export const TransportIdFromString = Schema.String.pipe(
  Schema.decodeTo(
    Schema.toType(TransportId),
    SchemaTransformation.transformEffect<typeof Fields.Type, string>({
      decode: (text, options) =>
        Result.match(parseTransportId(text), {
          onSuccess: Effect.succeed,
          onFailure: ({ field, rule }) => {
            const message = `a transport id, but its ${field} ${rule}`
            return Effect.fail(new SchemaIssue.InvalidValue({ expected: message }, text, options))
          }
        }),
      encode: (fields) => Effect.succeed(formatTransportId({ ...fields, adrfam: fields.adrfam }))
    })
  )
)
