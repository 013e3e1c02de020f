/**
 * The interchange formats of keys: `NVMeTLSkey-1:hh:base64:` for TLS (NVMe/TCP Transport specification, "PSK interchange
 * format") and `DHHC-1:hh:base64:` for DH-HMAC-CHAP (NVMe Base specification, "Secret representation"). In both the bytes of
 * the key are followed by their CRC-32, little endian.
 */
import * as crypto from "node:crypto"
import * as zlib from "node:zlib"

/** What the two digits say, and how many bytes the key has then. */
const pskLengths: Readonly<Record<string, ReadonlyArray<number>>> = { "00": [32, 48], "01": [32], "02": [48] }
const dhchapLengths: Readonly<Record<string, ReadonlyArray<number>>> = {
  "00": [32, 48, 64],
  "01": [32],
  "02": [48],
  "03": [64]
}
const pskPrefix = "NVMeTLSkey-1"
const dhchapPrefix = "DHHC-1"
const crcBytes = 4

/** The rule that the text breaks; undefined when it breaks none. It never quotes the text. */
export const keyTextRule = (text: string): string | undefined => {
  const parts = /^(NVMeTLSkey-1|DHHC-1):(\d\d):([A-Za-z0-9+/]+=*):$/.exec(text)
  if (parts === null) return `has the form of neither "${pskPrefix}:hh:base64:" nor "${dhchapPrefix}:hh:base64:"`
  const [, prefix, hash = "", base64 = ""] = parts
  const lengths = (prefix === pskPrefix ? pskLengths : dhchapLengths)[hash]
  if (lengths === undefined) return `names a hash, ${hash}, that ${prefix} does not have`
  const bytes = Buffer.from(base64, "base64")
  if (bytes.toString("base64") !== base64) return "is not base64"
  const length = bytes.length - crcBytes
  if (!lengths.includes(length)) return `holds a key of ${length} bytes, and not of ${lengths.join(" or ")}`
  return bytes.readUInt32LE(length) === zlib.crc32(bytes.subarray(0, length))
    ? undefined
    : "does not match its own checksum"
}

const textOf = (prefix: string, hash: string, lengthBytes: number): string => {
  const bytes = Buffer.alloc(lengthBytes + crcBytes)
  crypto.randomFillSync(bytes, 0, lengthBytes)
  bytes.writeUInt32LE(zlib.crc32(bytes.subarray(0, lengthBytes)), lengthBytes)
  return `${prefix}:${hash}:${bytes.toString("base64")}:`
}

export const randomPsk = (hash: "sha256" | "sha384"): string =>
  hash === "sha256" ? textOf(pskPrefix, "01", 32) : textOf(pskPrefix, "02", 48)

const dhchapHashes = { none: ["00", 32], sha256: ["01", 32], sha384: ["02", 48], sha512: ["03", 64] } as const

export const randomDhchap = (hash: "none" | "sha256" | "sha384" | "sha512"): string => {
  const [digits, lengthBytes] = dhchapHashes[hash]
  return textOf(dhchapPrefix, digits, lengthBytes)
}
