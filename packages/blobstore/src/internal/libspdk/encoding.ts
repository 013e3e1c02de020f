/** How values cross to the addon. */
import type { ClearMethod, Xattrs } from "../driver.ts"
import { decodeText, encodeText } from "../format/text.ts"

/** SPDK's `enum blob_clear_method`. */
export const blobClearMethods = { default: 0, none: 1, unmap: 2, write_zeroes: 3 } as const satisfies Record<
  ClearMethod,
  number
>

/** SPDK's `enum bs_clear_method`. */
export const storeClearMethods = { unmap: 0, write_zeroes: 1, none: 2 } as const satisfies Record<
  Exclude<ClearMethod, "default">,
  number
>

export const flag = (set: boolean): number => (set ? 1 : 0)

/** Name, value, name, value. */
export const xattrPairs = (xattrs: Xattrs): Array<Uint8Array> =>
  [...xattrs].flatMap(([name, value]) => [encodeText(name), value])

const lengthsBytes = 8

/** Of each the lengths of name and value in 32 bits, then both. Copies. */
export const decodeXattrs = (bytes: Uint8Array | undefined): Xattrs => {
  const xattrs = new Map<string, Uint8Array>()
  if (bytes === undefined) return xattrs
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at < bytes.byteLength;) {
    const nameAt = at + lengthsBytes
    const valueAt = nameAt + view.getUint32(at, true)
    at = valueAt + view.getUint32(nameAt - 4, true)
    xattrs.set(decodeText(bytes.subarray(nameAt, valueAt)), Uint8Array.from(bytes.subarray(valueAt, at)))
  }
  return xattrs
}
