/**
 * What the status of a Connect command means. Its command specific statuses have the numbers of other commands' ones, as which 0x82
 * is a write to a read-only range.
 */
import {
  Busy,
  type ErrorContext,
  fromNvme,
  NotFound,
  NotSupported,
  PermissionDenied,
  SpdkError,
  type NvmeStatus
} from "../../SpdkError.ts"

const commandSpecific = 1

export const connectRefusal = (nvme: NvmeStatus, context: ErrorContext): SpdkError => {
  switch (nvme.sct === commandSpecific ? nvme.sc : undefined) {
    case 0x80:
      return new SpdkError({
        reason: new NotSupported({ ...context, detail: "the target does not support this format of Connect", nvme })
      })
    case 0x81:
      return new SpdkError({
        reason: new Busy({ ...context, detail: "the subsystem has no controller to give", nvme })
      })
    case 0x82: {
      const detail = "the target has no such subsystem, or refuses another parameter of Connect"
      return new SpdkError({ reason: new NotFound({ ...context, detail, nvme }) })
    }
    case 0x84: {
      const detail = "the subsystem does not allow this host"
      return new SpdkError({ reason: new PermissionDenied({ ...context, detail, nvme }) })
    }
    default:
      return fromNvme(nvme.sct, nvme.sc, nvme.dnr, { ...context, detail: "Connect was refused" })
  }
}
