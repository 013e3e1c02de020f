/**
 * How an I/O ended: a negative errno, and the NVMe status, as `Layout.Cqe` encodes it, where there is one. The
 * numbers are Linux's, which SPDK uses on every system.
 */
import { errnoName, maxErrno } from "../../common/errno.ts"
import { strerrorTexts } from "../../rpc/errorText.ts"

export const EPERM = 1
export const ENOENT = 2
export const EIO = 5
export const EBADF = 9
export const ENOMEM = 12
export const EFAULT = 14
export const EBUSY = 16
export const EEXIST = 17
export const ENODEV = 19
export const EINVAL = 22
export const ERANGE = 34
export const ENOTSUP = 95
export const ETIMEDOUT = 110
export const EALREADY = 114
export const ECANCELED = 125

const nvmeWord = (sct: number, sc: number): number => 0x10000 | ((sct & 0xff) << 8) | (sc & 0xff)

/** What SPDK says when a module has no better word: internal device error. */
export const nvmeInternalError = nvmeWord(0, 0x06)
/** Command abort requested. */
export const nvmeAborted = nvmeWord(0, 0x07)

/** What an I/O ends with. One of the constants below, or made once per I/O that fails. */
export interface IoStatus {
  readonly errno: number
  readonly nvme: number
  /** The name under which SPDK's statistics count it. */
  readonly counter: "failed" | "aborted" | "nvme_error" | "aio_error" | undefined
}

export const success: IoStatus = { errno: 0, nvme: 0, counter: undefined }
export const failed: IoStatus = { errno: -EIO, nvme: nvmeInternalError, counter: "failed" }
export const aborted: IoStatus = { errno: -ECANCELED, nvme: nvmeAborted, counter: "aborted" }

/** Which words a failure gets on its way up is spdk_bdev_io_get_nvme_status's choice, and get_aio_status's. */
export const nvmeFailure = (sct: number, sc: number): IoStatus => {
  const nvme = nvmeWord(sct, sc)
  return nvme === nvmeAborted ? aborted : { errno: -EIO, nvme, counter: "nvme_error" }
}

export const errnoFailure = (errno: number): IoStatus => ({
  errno: -errno,
  nvme: errno === EIO ? nvmeInternalError : 0,
  counter: "aio_error"
})

const codes = new Map<string, number>()
for (let code = 1; code <= maxErrno; code++) codes.set(errnoName(code), code)
codes.set("EOPNOTSUPP", ENOTSUP)

/** The positive errno of what Node's `fs` and `net` throw; EIO when it is nothing of that kind. */
export const errnoOf = (error: unknown): number => {
  const code = error instanceof Error && "code" in error ? error.code : undefined
  if (typeof code !== "string") return EIO
  return codes.get(code) ?? (code.startsWith("ERR_INVALID_ARG") ? EINVAL : EIO)
}

/** strerror(3), which SPDK sends as the message of a failed RPC. */
export const strerror = (errno: number): string => strerrorTexts[errno] ?? `Unknown error ${errno}`
