/** The errors of this driver, by what SPDK's errno says in the same place. */
import type { IoError } from "@effect-spdk/core/Bdev"
import {
  Busy,
  Corrupted,
  fromErrno,
  invalid,
  NoMemory,
  NoSpace,
  NotFound,
  PermissionDenied,
  ReadOnly,
  Released,
  SpdkError
} from "@effect-spdk/core/SpdkError"
import type { Damage } from "../format/damage.ts"

export const busy = (operation: string, resource: string, detail: string): IoError =>
  new SpdkError({ reason: new Busy({ operation, resource, detail }) })

export const notFound = (operation: string, resource: string, detail?: string): IoError =>
  new SpdkError({ reason: new NotFound({ operation, resource, detail }) })

export const noSpace = (operation: string, detail: string): IoError =>
  new SpdkError({ reason: new NoSpace({ operation, detail }) })

export const noMemory = (operation: string, detail: string): IoError =>
  new SpdkError({ reason: new NoMemory({ operation, detail }) })

export const readOnly = (operation: string, resource: string): IoError =>
  new SpdkError({ reason: new ReadOnly({ operation, resource }) })

/** EIO. */
export const unreadable = (bdev: string): IoError =>
  fromErrno(-5, { operation: "Blob.read", resource: bdev, detail: "the external snapshot is missing" })

export const notPermitted = (operation: string, resource: string, detail: string): IoError =>
  new SpdkError({ reason: new PermissionDenied({ operation, resource, detail }) })

export const closed = (operation: string, resource: string): IoError =>
  new SpdkError({ reason: new Released({ operation, resource, what: "blob" }) })

export const refused = (operation: string, resource: string, field: string, rule: string, value?: unknown): IoError =>
  invalid(operation, field, rule, value, resource)

export const corrupted = (operation: string, resource: string, damage: Damage): SpdkError<Corrupted> =>
  new SpdkError({ reason: new Corrupted({ operation, resource, where: damage.where, rule: damage.rule }) })
