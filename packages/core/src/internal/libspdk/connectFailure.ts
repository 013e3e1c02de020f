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

/** What the target has answered to Connect, by lines of SPDK's log; undefined when there is none, or several that differ. */
export const refusalIn = (lines: ReadonlyArray<string>, context: ErrorContext): SpdkError | undefined => {
  const found = new Set(lines.flatMap((line) => refusedStatus.exec(line)?.slice(1, 3).join(" ") ?? []))
  const [status] = found
  if (status === undefined || found.size > 1) return undefined
  const [sct, sc] = status.split(" ").map(Number)
  return connectRefusal({ sct: sct ?? 0, sc: sc ?? 0, dnr: false }, context)
}

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
