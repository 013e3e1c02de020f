/**
 * What the words of SPDK's error answers mean. Many methods answer JSON-RPC's "invalid params" or "internal error" to whatever
 * happened, and only the text tells: strerror(3) of the errno, alone or at the end of a sentence, or words of the module's own.
 */

/** strerror(3) of glibc, which SPDK sends. */
export const strerrorTexts: { readonly [errno: number]: string } = {
  1: "Operation not permitted",
  2: "No such file or directory",
  5: "Input/output error",
  6: "No such device or address",
  7: "Argument list too long",
  9: "Bad file descriptor",
  11: "Resource temporarily unavailable",
  12: "Cannot allocate memory",
  13: "Permission denied",
  14: "Bad address",
  16: "Device or resource busy",
  17: "File exists",
  19: "No such device",
  20: "Not a directory",
  21: "Is a directory",
  22: "Invalid argument",
  23: "Too many open files in system",
  24: "Too many open files",
  26: "Text file busy",
  27: "File too large",
  28: "No space left on device",
  30: "Read-only file system",
  33: "Numerical argument out of domain",
  34: "Numerical result out of range",
  36: "File name too long",
  38: "Function not implemented",
  39: "Directory not empty",
  40: "Too many levels of symbolic links",
  74: "Bad message",
  75: "Value too large for defined data type",
  84: "Invalid or incomplete multibyte or wide character",
  95: "Operation not supported",
  98: "Address already in use",
  99: "Cannot assign requested address",
  104: "Connection reset by peer",
  105: "No buffer space available",
  107: "Transport endpoint is not connected",
  108: "Cannot send after transport endpoint shutdown",
  110: "Connection timed out",
  111: "Connection refused",
  113: "No route to host",
  114: "Operation already in progress",
  115: "Operation now in progress",
  116: "Stale file handle",
  117: "Structure needs cleaning",
  122: "Disk quota exceeded",
  125: "Operation canceled"
}

const errnoByText: ReadonlyMap<string, number> = new Map(
  Object.entries(strerrorTexts).map(([errno, text]) => [text, Number(errno)])
)

/** Modules' own words, and the errno that says the same. The first that fits counts. */
const moduleTexts: ReadonlyArray<readonly [pattern: RegExp, errno: number]> = [
  [
    /memory allocation (error|failed)|^out of memory|^not enough memory|^unable to allocate memory|^failed to allocate /i,
    12
  ],
  [/try again later|subsystem in active state/i, 16],
  [/already being (destroyed|deleted)/i, 114],
  [/already (exists?|enabled)\b/i, 17],
  [/timeout reached/i, 110],
  [/does(n't| not) exist|\bnot found\b|^could not find |^unable to find |^no key (object )?(was )?found/i, 2]
]

/** The positive errno that an answer's text stands for; undefined when it names none. */
export const errnoOfText = (message: string): number | undefined => {
  const text = message.trim().replace(/\.$/, "")
  const alone = errnoByText.get(text)
  if (alone !== undefined) return alone
  // "Failed to create 2 split bdevs from 'disk': File exists", "Could not add auth group (1), File exists"
  const last = /[:,] ([^:,]+)$/.exec(text)?.[1]
  const atEnd = last === undefined ? undefined : errnoByText.get(last)
  return atEnd ?? moduleTexts.find(([pattern]) => pattern.test(text))?.[1]
}
