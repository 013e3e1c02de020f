/**
 * Names and values of xattrs, checked against what a page of metadata takes.
 */
import { type InvalidArgument, invalid, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Result from "effect/Result"
import type { XattrsInput, XattrValue } from "../Blob.ts"
import type { Xattrs } from "./driver.ts"

/** The descriptors of a metadata page less the head of one xattr (`SPDK_BS_MAX_DESC_SIZE`). */
export const maxXattrBytes = 4072 - 9

type Refused = SpdkError<InvalidArgument>

const encoder = new TextEncoder()

/** Why this is no name; undefined when it is one. */
export const nameRule = (name: string): string | undefined => {
  if (typeof name !== "string") return "is not a string"
  if (name === "") return "is empty"
  if (name.includes("\0")) return "contains a NUL character"
  const bytes = Buffer.from(name)
  if (bytes.length > maxXattrBytes) return `is longer than the ${maxXattrBytes} bytes of name and value together`
  // A lone surrogate would come back as another character.
  return bytes.toString() === name ? undefined : "has no encoding in UTF-8"
}

/** The bytes of a value that fits beside its name. The caller has checked the name. */
export const valueOf = (
  name: string,
  value: XattrValue,
  operation: string,
  field: string,
  resource: string
): Result.Result<Uint8Array, Refused> => {
  if (typeof value !== "string" && !(value instanceof Uint8Array)) {
    return Result.fail(invalid(operation, field, "is neither a Uint8Array nor a string", undefined, resource))
  }
  // A copy: the caller may change its own.
  const bytes = typeof value === "string" ? encoder.encode(value) : Uint8Array.from(value)
  const most = maxXattrBytes - Buffer.byteLength(name)
  return bytes.length <= most
    ? Result.succeed(bytes)
    : Result.fail(
        invalid(operation, field, `has ${bytes.length} bytes, and ${most} fit beside its name`, undefined, resource)
      )
}

export const xattrsOf = (
  input: XattrsInput | undefined,
  operation: string,
  resource: string
): Result.Result<Xattrs, Refused> => {
  const xattrs = new Map<string, Uint8Array>()
  if (input === undefined) return Result.succeed(xattrs)
  const refuse = (rule: string) => Result.fail(invalid(operation, "xattrs", rule, undefined, resource))
  if (typeof input !== "object" || input === null) return refuse("is not an object")
  const entries = isIterable(input) ? input : Object.entries(input)
  for (const entry of entries) {
    if (!Array.isArray(entry) || entry.length !== 2) return refuse("has an element that is not a name and a value")
    const [name, value] = entry
    const rule = nameRule(name)
    if (rule !== undefined) return Result.fail(invalid(operation, "xattrs name", rule, name, resource))
    if (xattrs.has(name)) return Result.fail(invalid(operation, "xattrs name", "comes twice", name, resource))
    const bytes = valueOf(name, value, operation, `xattrs[${JSON.stringify(name)}]`, resource)
    if (Result.isFailure(bytes)) return Result.fail(bytes.failure)
    xattrs.set(name, bytes.success)
  }
  return Result.succeed(xattrs)
}

const isIterable = (input: XattrsInput): input is Iterable<readonly [string, XattrValue]> =>
  typeof (input as { readonly [Symbol.iterator]?: unknown })[Symbol.iterator] === "function"
