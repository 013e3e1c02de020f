/** The errors of this driver, by what SPDK's errno says in the same place. */
import type { IoError } from "@effect-spdk/core/Bdev"
import {
  Busy,
  Corrupted,
  invalid,
  NoMemory,
  NoSpace,
  NotFound,
  PermissionDenied,
  ReadOnly,
  Released,
  SpdkError
} from "@effect-spdk/core/SpdkError"
import type { BlobId } from "../driver.ts"
import type { Damage } from "../format/damage.ts"

export const blobName = (id: BlobId): string => `blob 0x${id.toString(16)}`

export const busy = (operation: string, id: BlobId | undefined, detail: string): IoError =>
  new SpdkError({ reason: new Busy({ operation, resource: id === undefined ? undefined : blobName(id), detail }) })

export const notFound = (operation: string, id: BlobId, detail?: string): IoError =>
  new SpdkError({ reason: new NotFound({ operation, resource: blobName(id), detail }) })

export const noSpace = (operation: string, detail: string): IoError =>
  new SpdkError({ reason: new NoSpace({ operation, detail }) })

export const noMemory = (operation: string, detail: string): IoError =>
  new SpdkError({ reason: new NoMemory({ operation, detail }) })

export const readOnly = (operation: string, id: BlobId): IoError =>
  new SpdkError({ reason: new ReadOnly({ operation, resource: blobName(id) }) })

export const notPermitted = (operation: string, id: BlobId, detail: string): IoError =>
  new SpdkError({ reason: new PermissionDenied({ operation, resource: blobName(id), detail }) })

export const closed = (operation: string, id: BlobId): IoError =>
  new SpdkError({ reason: new Released({ operation, resource: blobName(id), what: "blob" }) })

export const refused = (operation: string, id: BlobId, field: string, rule: string, value?: unknown): IoError =>
  invalid(operation, field, rule, value, blobName(id))

export const corrupted = (operation: string, resource: string, damage: Damage): SpdkError<Corrupted> =>
  new SpdkError({ reason: new Corrupted({ operation, resource, where: damage.where, rule: damage.rule }) })
