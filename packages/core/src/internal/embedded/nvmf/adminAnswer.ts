/** What a command of the admin queue is answered with. */

/** A number is a status without anything else; "later" is an asynchronous event request that an event will answer. */
export type AdminAnswer = number | "later" | { readonly dword0?: number; readonly data?: Uint8Array }

/** The firmware revision of identify data and the firmware log. */
export const firmwareRevision = "embedded"

export const zeroes = (lengthBytes: number): Uint8Array => new Uint8Array(lengthBytes)
