/**
 * Why a connection of SPDK's driver did not come about. SPDK answers EIO, and writes what it was into its log, whose first lines the
 * addon sends along.
 */
import { type ErrorContext, fromErrno, type SpdkError } from "../../SpdkError.ts"
import { connectRefusal } from "../nvme/connectRefusal.ts"

const EIO = -5

/** "err" where the connection is made asynchronously, "errno" where not. */
const socketError = /connect\(\) failed, err(?:no)? = (\d+)|sock connection error -(\d+)/

/** Its "do not retry" bit is not in the log. */
const refusedStatus = /Connect command completed with error: sct (\d+), sc (\d+)/

export const connectFailure = (status: number, text: string, context: ErrorContext): SpdkError => {
  const plain = fromErrno(status, { ...context, detail: text === "" ? undefined : text })
  if (status !== EIO) return plain
  const refused = refusedStatus.exec(text)
  if (refused !== null) {
    return connectRefusal({ sct: Number(refused[1]), sc: Number(refused[2]), dnr: false }, context)
  }
  const broken = socketError.exec(text)
  if (broken === null) return plain
  const known = fromErrno(-Number(broken[1] ?? broken[2]), { ...context, detail: text })
  // Other errnos mean something else where no socket is.
  return known.reason._tag === "IoFailed" || known.reason._tag === "TimedOut" ? known : plain
}
