/**
 * What a status of SPDK's blobstore means for the call that it answers.
 */
import {
  Corrupted,
  DeviceRemoved,
  fromErrno,
  invalid,
  PermissionDenied,
  IoFailed,
  ReadOnly,
  Released,
  SpdkError,
  stoppedDetail
} from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"

/** SPDK's answer where memory is there and metadata pages are not. */
const noMemoryDetail = "no memory is free, or no metadata page"

/** The negative errnos that SPDK's blobstore answers with a meaning of its own. */
export const errno = {
  EPERM: -1,
  ENOENT: -2,
  ENXIO: -6,
  EBADF: -9,
  ENOMEM: -12,
  EBUSY: -16,
  EEXIST: -17,
  ENODEV: -19,
  EINVAL: -22,
  ENOSPC: -28,
  EILSEQ: -84,
  ESHUTDOWN: -108,
  ENOTRECOVERABLE: -131
} as const

/** What is known of a refusal by the call that it is an answer to. */
export interface Meaning {
  /** Of EINVAL. */
  readonly field?: string
  readonly rule?: string
  /** The same, where all arguments are known to be right: something on the device is not. */
  readonly damage?: { readonly where: string; readonly rule: string }
  /** Of EPERM: metadata or data of the blob cannot be changed. */
  readonly readOnly?: boolean
  readonly detail?: string
  /** The same of one errno alone. */
  readonly details?: Readonly<Record<number, string>>
}

/** The error for a status other than 0. */
export const errorOf = (status: number, operation: string, resource: string, meaning: Meaning = {}): SpdkError => {
  const context = {
    operation,
    resource,
    detail: meaning.details?.[status] ?? meaning.detail ?? (status === errno.ENOMEM ? noMemoryDetail : undefined)
  }
  switch (status) {
    case errno.ESHUTDOWN:
      return new SpdkError({ reason: new DeviceRemoved({ operation, resource }) })
    case errno.ENOTRECOVERABLE:
      return new SpdkError({ reason: new IoFailed({ operation, resource, detail: stoppedDetail }) })
    case errno.EBADF:
      return new SpdkError({ reason: new Released({ operation, resource, what: "handle" }) })
    case errno.EILSEQ:
      return new SpdkError({
        reason: new Corrupted({
          operation,
          resource,
          where: "metadata",
          rule: "was not written by SPDK, or is damaged"
        })
      })
    case errno.EPERM:
      return new SpdkError({
        reason: meaning.readOnly === true ? new ReadOnly(context) : new PermissionDenied(context)
      })
    case errno.EINVAL:
      if (meaning.damage !== undefined) {
        return new SpdkError({ reason: new Corrupted({ operation, resource, ...meaning.damage }) })
      }
      return invalid(operation, meaning.field ?? "arguments", meaning.rule ?? "refused by SPDK", undefined, resource)
    default:
      return fromErrno(status, context)
  }
}

/** Fails for a status other than 0. */
export const check = <A extends { readonly status: number }>(
  answer: A,
  operation: string,
  resource: string,
  meaning?: Meaning
): Effect.Effect<A, SpdkError> =>
  answer.status === 0 ? Effect.succeed(answer) : Effect.fail(errorOf(answer.status, operation, resource, meaning))
