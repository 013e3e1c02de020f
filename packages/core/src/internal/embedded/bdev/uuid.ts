/**
 * UUIDs as SPDK makes them for bdevs that were given none.
 */
import { createHash } from "node:crypto"

const nil = "00000000-0000-0000-0000-000000000000"

/** The given one in lower case; undefined for the nil UUID, which SPDK takes for none. */
export const normalize = (uuid: string | undefined): string | undefined => {
  const lower = uuid?.toLowerCase()
  return lower === nil ? undefined : lower
}

/** Version 5 of RFC 4122. */
export const derive = (namespace: string, name: Uint8Array): string => {
  const hash = createHash("sha1").update(toBytes(namespace)).update(name).digest().subarray(0, 16)
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x50
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80
  return format(hash)
}

export const toBytes = (uuid: string): Buffer => Buffer.from(uuid.replaceAll("-", ""), "hex")

const format = (bytes: Buffer): string =>
  [bytes.subarray(0, 4), bytes.subarray(4, 6), bytes.subarray(6, 8), bytes.subarray(8, 10), bytes.subarray(10)]
    .map((part) => part.toString("hex"))
    .join("-")
