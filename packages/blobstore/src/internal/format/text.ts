/**
 * Names on disk are bytes, names here are strings. UTF-8 where the bytes are UTF-8; bytes that are not become code units
 * of a private range, one each, so that what was read can be written back unchanged.
 */
const escapeBase = 0xf700
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const encoder = new TextEncoder()
const escaped = /[\uf780-\uf7ff]/

export const decodeText = (bytes: Uint8Array): string => {
  // Most names are short and ASCII, where starting the decoder takes longer than decoding.
  let ascii = ""
  for (let i = 0; i < bytes.length && i < 32; i++) {
    const byte = bytes[i] ?? 0
    if (byte >= 0x80) break
    ascii += String.fromCharCode(byte)
  }
  if (ascii.length === bytes.length) return ascii
  try {
    const text = strict.decode(bytes)
    // A name that has such a character itself is escaped too: one byte string for every string.
    if (!escaped.test(text)) return text
  } catch {
    // Not UTF-8.
  }
  let text = ""
  for (const byte of bytes) text += String.fromCharCode(byte < 0x80 ? byte : escapeBase + byte)
  return text
}

export const encodeText = (text: string): Uint8Array => {
  if (!escaped.test(text)) return encoder.encode(text)
  const parts: Array<number> = []
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    if (code >= 0xf780 && code <= 0xf7ff) parts.push(code - escapeBase)
    else parts.push(...encoder.encode(character))
  }
  return Uint8Array.from(parts)
}
