/**
 * Structures of the NVMe specification as tables: each field knows its place, how it is read and how it is written. Little
 * endian, as all of NVMe. Used on the control plane only: every decode makes an object.
 */
import * as Result from "effect/Result"

/** Bytes from outside that are not what they should be. The sentence goes: "<where> <rule>". */
export interface Malformed {
  readonly where: string
  readonly rule: string
}

export const malformed = (where: string, rule: string): Result.Result<never, Malformed> => Result.fail({ where, rule })

/** `A` is what is read; `In` what may be written, which leaves out what is zero. */
export interface Field<A, In = A> {
  /** Of its first byte. */
  readonly offset: number
  readonly length: number
  readonly get: (view: DataView, base: number) => A
  readonly set: (view: DataView, base: number, value: In) => void
}

export type Fields = Readonly<Record<string, Field<unknown, never>>>

export type Decoded<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends Field<infer A, never> ? A : never
}

/** What is left out is zero. */
export type StructInput<F extends Fields> = {
  readonly [K in keyof F]?:
    | (F[K] extends { set: (view: DataView, base: number, value: infer In) => void } ? In : never)
    | undefined
}

export interface Struct<F extends Fields> {
  readonly name: string
  readonly lengthBytes: number
  /** Bytes behind the structure are left alone. */
  readonly decode: (bytes: Uint8Array) => Result.Result<Decoded<F>, Malformed>
  /** Throws a RangeError on a value that the field cannot hold: only our own program makes one. */
  readonly encode: (value: StructInput<F>) => Uint8Array<ArrayBuffer>
  /** As a field of another structure. */
  readonly at: (offset: number) => Field<Decoded<F>, StructInput<F>>
}

/** What a structure decodes to, and what it is encoded from. */
export type DecodedOf<S> = S extends Struct<infer F> ? Decoded<F> : never
export type InputOf<S> = S extends Struct<infer F> ? StructInput<F> : never

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const struct = <F extends Fields>(name: string, lengthBytes: number, fields: F): Struct<F> => {
  // The keys of a record are lost to Object.entries; they are those of F.
  const entries = Object.entries(fields) as ReadonlyArray<[keyof F & string, Field<unknown, never>]>
  for (const [key, field] of entries) {
    if (field.offset + field.length > lengthBytes) throw new RangeError(`${name}.${key} ends behind the structure`)
  }
  const get = (view: DataView, base: number): Decoded<F> => {
    const decoded: Record<string, unknown> = {}
    for (const [key, field] of entries) decoded[key] = field.get(view, base)
    // Each key has been filled by its own field.
    return decoded as Decoded<F>
  }
  const set = (view: DataView, base: number, value: StructInput<F>): void => {
    for (const [key, field] of entries) {
      const one = value[key]
      // The value's type comes from the field of the same key.
      if (one !== undefined) field.set(view, base, one as never)
    }
  }
  return {
    name,
    lengthBytes,
    decode: (bytes) =>
      bytes.byteLength < lengthBytes
        ? malformed(name, `has ${bytes.byteLength} bytes instead of ${lengthBytes}`)
        : Result.succeed(get(viewOf(bytes), 0)),
    encode: (value) => {
      const bytes = new Uint8Array(lengthBytes)
      set(viewOf(bytes), 0, value)
      return bytes
    },
    at: (offset) => ({
      offset,
      length: lengthBytes,
      get: (view, base) => get(view, base + offset),
      set: (view, base, value) => set(view, base + offset, value)
    })
  }
}

const checkNumber = (value: number, bits: number): number => {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits) {
    throw new RangeError(`${value} is not an unsigned number of ${bits} bits`)
  }
  return value
}

const checkBigInt = (value: bigint, bits: number): bigint => {
  if (value < 0n || value >= 1n << BigInt(bits)) throw new RangeError(`${value} does not fit ${bits} bits`)
  return value
}

export const u8 = (offset: number): Field<number> => ({
  offset,
  length: 1,
  get: (view, base) => view.getUint8(base + offset),
  set: (view, base, value) => view.setUint8(base + offset, checkNumber(value, 8))
})

export const u16 = (offset: number): Field<number> => ({
  offset,
  length: 2,
  get: (view, base) => view.getUint16(base + offset, true),
  set: (view, base, value) => view.setUint16(base + offset, checkNumber(value, 16), true)
})

export const u32 = (offset: number): Field<number> => ({
  offset,
  length: 4,
  get: (view, base) => view.getUint32(base + offset, true),
  set: (view, base, value) => view.setUint32(base + offset, checkNumber(value, 32), true)
})

export const u64 = (offset: number): Field<bigint> => ({
  offset,
  length: 8,
  get: (view, base) => view.getBigUint64(base + offset, true),
  set: (view, base, value) => view.setBigUint64(base + offset, checkBigInt(value, 64), true)
})

export const u128 = (offset: number): Field<bigint> => ({
  offset,
  length: 16,
  get: (view, base) => view.getBigUint64(base + offset, true) | (view.getBigUint64(base + offset + 8, true) << 64n),
  set: (view, base, value) => {
    checkBigInt(value, 128)
    view.setBigUint64(base + offset, value & 0xffff_ffff_ffff_ffffn, true)
    view.setBigUint64(base + offset + 8, value >> 64n, true)
  }
})

/** A copy. */
export const bytesField = (offset: number, length: number): Field<Uint8Array> => ({
  offset,
  length,
  get: (view, base) => new Uint8Array(view.buffer, view.byteOffset + base + offset, length).slice(),
  set: (view, base, value) => {
    if (value.byteLength > length) throw new RangeError(`${value.byteLength} bytes do not fit ${length}`)
    new Uint8Array(view.buffer, view.byteOffset + base + offset, length).set(value)
  }
})

const bytesAt = (view: DataView, start: number, length: number): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + start, length)

/** ASCII filled up with spaces. What is no printable ASCII reads as "?"; a NUL ends it, because some devices fill with NUL. */
export const ascii = (offset: number, length: number): Field<string> => ({
  offset,
  length,
  get: (view, base) => {
    let read = ""
    for (const byte of bytesAt(view, base + offset, length)) {
      if (byte === 0) break
      read += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "?"
    }
    return read.trimEnd()
  },
  set: (view, base, value) => {
    if (!/^[\x20-\x7e]*$/.test(value) || value.length > length) {
      throw new RangeError(`${JSON.stringify(value)} is not at most ${length} characters of printable ASCII`)
    }
    const bytes = bytesAt(view, base + offset, length)
    bytes.fill(0x20)
    for (let i = 0; i < value.length; i++) bytes[i] = value.charCodeAt(i)
  }
})

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** UTF-8 up to a NUL or the end, filled up with NUL. Bytes that are no UTF-8 read as U+FFFD. */
export const utf8 = (offset: number, length: number): Field<string> => ({
  offset,
  length,
  get: (view, base) => {
    const bytes = bytesAt(view, base + offset, length)
    const end = bytes.indexOf(0)
    // A copy: the decoder takes no memory that is shared.
    return decoder.decode(bytes.slice(0, end < 0 ? length : end))
  },
  set: (view, base, value) => {
    const bytes = new TextEncoder().encode(value)
    if (bytes.byteLength >= length) throw new RangeError(`${bytes.byteLength} bytes and a NUL do not fit ${length}`)
    const target = bytesAt(view, base + offset, length)
    target.fill(0)
    target.set(bytes)
  }
})

/** As `utf8`, but filled up with spaces, as addresses are in the discovery log. */
export const padded = (offset: number, length: number): Field<string> => ({
  offset,
  length,
  get: (view, base) => {
    const bytes = bytesAt(view, base + offset, length)
    const end = bytes.indexOf(0)
    return decoder.decode(bytes.slice(0, end < 0 ? length : end)).trimEnd()
  },
  set: (view, base, value) => {
    const bytes = new TextEncoder().encode(value)
    if (bytes.byteLength > length) throw new RangeError(`${bytes.byteLength} bytes do not fit ${length}`)
    const target = bytesAt(view, base + offset, length)
    target.fill(0x20)
    target.set(bytes)
  }
})

export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"))
    .join("")
    .toUpperCase()

export const fromHex = (hex: string): Uint8Array<ArrayBuffer> => {
  if (!/^([0-9a-fA-F]{2})*$/.test(hex)) throw new RangeError(`${JSON.stringify(hex)} is not in hexadecimal digits`)
  const bytes = new Uint8Array(hex.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

/** An identifier in hexadecimal digits, most significant byte first; undefined when it is all zero. */
export const identifier = (offset: number, length: number): Field<string | undefined> => ({
  offset,
  length,
  get: (view, base) => {
    const bytes = bytesAt(view, base + offset, length)
    return bytes.every((byte) => byte === 0) ? undefined : toHex(bytes)
  },
  set: (view, base, value) => {
    if (value === undefined) return
    const bytes = fromHex(value)
    if (bytes.byteLength !== length) throw new RangeError(`${value} has not ${length} bytes`)
    bytesAt(view, base + offset, length).set(bytes)
  }
})

export type BitNames = Readonly<Record<string, number>>
export type Flags<B extends BitNames> = { readonly [K in keyof B]: boolean }
export type FlagsInput<B extends BitNames> = { readonly [K in keyof B]?: boolean | undefined }

/** Single bits by their numbers, in a word of the given field. */
export const flags = <const B extends BitNames>(word: Field<number>, names: B): Field<Flags<B>, FlagsInput<B>> => {
  const entries = Object.entries(names)
  return {
    offset: word.offset,
    length: word.length,
    get: (view, base) => {
      const value = word.get(view, base)
      const read: Record<string, boolean> = {}
      for (const [name, bit] of entries) read[name] = Math.floor(value / 2 ** bit) % 2 === 1
      return read as Flags<B> // of the same names
    },
    set: (view, base, value) => {
      let sum = 0
      for (const [name, bit] of entries) if (value[name] === true) sum += 2 ** bit
      word.set(view, base, sum)
    }
  }
}

export type RangeNames = Readonly<Record<string, readonly [shift: number, width: number]>>
export type Ranges<B extends RangeNames> = { readonly [K in keyof B]: number }
export type RangesInput<B extends RangeNames> = { readonly [K in keyof B]?: number | undefined }

/** Numbers in a word of the given field, each with its first bit and its width. */
export const ranges = <const B extends RangeNames>(word: Field<number>, names: B): Field<Ranges<B>, RangesInput<B>> => {
  const entries = Object.entries(names)
  return {
    offset: word.offset,
    length: word.length,
    get: (view, base) => {
      const value = word.get(view, base)
      const read: Record<string, number> = {}
      for (const [name, [shift, width]] of entries) read[name] = Math.floor(value / 2 ** shift) % 2 ** width
      return read as Ranges<B> // of the same names
    },
    set: (view, base, value) => {
      let sum = 0
      for (const [name, [shift, width]] of entries) sum += checkNumber(value[name] ?? 0, width) * 2 ** shift
      word.set(view, base, sum)
    }
  }
}

/** `count` of a field, `field.length` apart. Written as a shorter list, the rest stays zero. */
export const array = <A, In>(count: number, field: Field<A, In>): Field<ReadonlyArray<A>, ReadonlyArray<In>> => ({
  offset: field.offset,
  length: count * field.length,
  get: (view, base) => Array.from({ length: count }, (_, i) => field.get(view, base + i * field.length)),
  set: (view, base, values) => {
    if (values.length > count) throw new RangeError(`${values.length} values do not fit ${count}`)
    values.forEach((value, i) => field.set(view, base + i * field.length, value))
  }
})
