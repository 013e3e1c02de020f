/**
 * Little-endian fields in byte arrays, without a DataView per array: what runs per PDU reads chunks of a socket where they are.
 * Callers have checked the bounds.
 */
import { crc32c as update } from "@node-rs/crc32"

export const getU16 = (bytes: Uint8Array, at: number): number => (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)

export const getU32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)) >>> 0

/** A 64-bit field as a number: exact below 2^53, and beyond every real bound above that. */
export const getU64Number = (bytes: Uint8Array, at: number): number =>
  getU32(bytes, at) + getU32(bytes, at + 4) * 4_294_967_296

export const getU64 = (bytes: Uint8Array, at: number): bigint =>
  BigInt(getU32(bytes, at)) | (BigInt(getU32(bytes, at + 4)) << 32n)

export const setU16 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
}

export const setU32 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}

/** A whole number from 0 to 2^53 - 1. */
export const setU64Number = (bytes: Uint8Array, at: number, value: number): void => {
  setU32(bytes, at, value % 4_294_967_296)
  setU32(bytes, at + 4, Math.floor(value / 4_294_967_296))
}

export const setU64 = (bytes: Uint8Array, at: number, value: bigint): void => {
  setU32(bytes, at, Number(value & 0xffffffffn))
  setU32(bytes, at + 4, Number((value >> 32n) & 0xffffffffn))
}

/** CRC32C as NVMe/TCP wants it. `initial` is the CRC of the bytes before these. */
export const crc32c = (bytes: Uint8Array, start: number, end: number, initial = 0): number =>
  update(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), initial) >>> 0
