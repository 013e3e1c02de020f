/**
 * The layout of the rings that JavaScript and a reactor share, and of nothing else.
 *
 * This file is the one source: `addon/core/ring_layout.h` is generated from it by
 * `npm run build` (scripts/generate-layout.mjs), static assertions in C++ hold the
 * sizes, and `npm run check` compares the two.
 *
 * All words are 32 bits, little endian, in host memory. Indexes that end in `Word` count
 * 32-bit words from the start of their structure.
 */

/** What a submission entry asks for. The numbers are part of the layout. */
export const Opcode = {
  /** Completes in order on the thread. Carries messages of `SpdkThread.send` and `call`. */
  Nop: 0,
  Read: 1,
  Write: 2,
  Flush: 3,
  Unmap: 4,
  WriteZeroes: 5,
  Reset: 6,
  /** Asks the device to abort the request that the entry names in its channel's place; completes when asked, not when aborted. */
  Abort: 7,
  /** Completes after `offsetBlocks` microseconds on the thread's own timer. */
  Timer: 8,
  /**
   * Any command to an NVMe namespace: one or two segments, the 64 bytes of the command, over whose first 16 its completion is
   * written, and its data.
   */
  NvmeIo: 9
} as const
export type Opcode = (typeof Opcode)[keyof typeof Opcode]

/** What is true of an operation on either engine, by either driver. */
export interface OperationTraits {
  /** SPDK's name of the I/O type, as in `supported_io_types`; null when no device sees the entry. */
  readonly ioType: string | null
  /** The descriptor must be open for writing. */
  readonly writes: boolean
  /** The entry names blocks, which the device must have. */
  readonly hasRange: boolean
  /** Which memory the entry names. "in" is filled by the device; "command" is an NVMe command with its own data. */
  readonly data: "none" | "in" | "out" | "command"
}

/**
 * The table of operations. The checks of the rings, the masks of what a handle allows, and `addon/core/operations.h` come from it.
 * What one opcode does in one bdev module is in that module, in a switch or a record that must have all opcodes.
 */
export const operations = {
  [Opcode.Nop]: { ioType: null, writes: false, hasRange: false, data: "none" },
  [Opcode.Read]: { ioType: "read", writes: false, hasRange: true, data: "in" },
  [Opcode.Write]: { ioType: "write", writes: true, hasRange: true, data: "out" },
  [Opcode.Flush]: { ioType: "flush", writes: true, hasRange: true, data: "none" },
  [Opcode.Unmap]: { ioType: "unmap", writes: true, hasRange: true, data: "none" },
  [Opcode.WriteZeroes]: { ioType: "write_zeroes", writes: true, hasRange: true, data: "none" },
  [Opcode.Reset]: { ioType: "reset", writes: false, hasRange: false, data: "none" },
  [Opcode.Abort]: { ioType: null, writes: false, hasRange: false, data: "none" },
  [Opcode.Timer]: { ioType: null, writes: false, hasRange: false, data: "none" },
  [Opcode.NvmeIo]: { ioType: "nvme_io", writes: false, hasRange: false, data: "command" }
} as const satisfies Readonly<Record<Opcode, OperationTraits>>

export type TransferOpcode = typeof Opcode.Read | typeof Opcode.Write

/** The opcodes whose entries reach a device. */
export type DeviceOpcode = {
  [Code in Opcode]: (typeof operations)[Code]["ioType"] extends string ? Code : never
}[Opcode]

/**
 * Why the engine refused an entry before the device saw it. 0 means that the device answered.
 * The accompanying status is a negative errno.
 */
export const Detail = {
  None: 0,
  UnknownOpcode: 1,
  StaleChannel: 2,
  StaleSlab: 3,
  SlabRange: 4,
  Misaligned: 5,
  BlockRange: 6,
  ReadOnly: 7,
  NotSupported: 8,
  Removed: 9,
  TooManySegments: 10,
  UnknownTarget: 11,
  Closing: 12,
  LengthMismatch: 13,
  Stopped: 14
} as const
export type Detail = (typeof Detail)[keyof typeof Detail]

/**
 * A submission entry: 8 words, half a cache line. What is 64 bits wide and does not fit, which is rare, is in a `Wide` slot
 * behind it.
 */
export const Sqe = {
  words: 8,
  /** Opcode in the low byte; segment count in bits 8 to 14; bit 15 says that a `Wide` slot follows; the id in the upper half. */
  opcodeWord: 0,
  segmentsShift: 8,
  segmentsMask: 0x7f,
  wideBit: 0x8000,
  idShift: 16,
  idGenerationWord: 1,
  /** The slot of the channel in the lower half, that of the slab in the upper. */
  handlesWord: 2,
  slabShift: 16,
  /** The slot of no channel and of no slab. Those there are come before it. */
  noSlot: 0xffff,
  channelGenerationWord: 3,
  slabGenerationWord: 4,
  /** Byte offset into the slab; the length is that of the blocks. */
  slabOffsetWord: 5,
  offsetBlocksWord: 6,
  lengthBlocksWord: 7,
  /** For `Abort`, which has no channel: the id and generation of the request to abort stand where a channel's do. */
  targetIdWord: 2,
  targetGenerationWord: 3
} as const

/** The upper halves of an entry's offset and length. */
export const Wide = {
  offsetBlocksWord: 0,
  lengthBlocksWord: 1
} as const

/**
 * One scattered piece of a vectored entry: 4 words, so that two of them fill a ring slot. A vectored entry, and its `Wide`
 * slot if it has one, is followed by `ceil(segments / 2)` slots of segments, published together with it.
 */
export const Segment = {
  words: 4,
  slabSlotWord: 0,
  slabGenerationWord: 1,
  slabOffsetWord: 2,
  lengthBytesWord: 3,
  perSlot: 2,
  /** The most pieces one vectored request may have. */
  max: 64
} as const

/** A completion entry: 4 words, a quarter of a cache line. */
export const Cqe = {
  words: 4,
  /** Id of the request, or of the poller for a tick. */
  idWord: 0,
  idGenerationWord: 1,
  /** 0, or a negative errno. For a tick: how many runs of the poller it stands for (saturates). */
  statusWord: 2,
  /** A `Detail` in the low byte; the NVMe status in bits 8 to 25; a `CompletionKind` in bit 31. */
  reasonWord: 3,
  detailMask: 0xff,
  /** The NVMe status of a failed request: `0x10000 | sct << 8 | sc`, and 0x20000 for "do not retry". 0 when there is none. */
  nvmeShift: 8,
  nvmeMask: 0x3ffff,
  kindShift: 31
} as const

export const CompletionKind = { Request: 0, Tick: 1 } as const

/**
 * The control block in front of the rings. Each position, and what each
 * side says of its own state, stands on a cache line of its own (16 words). Ring positions count entries and wrap at 2^32.
 */
export const Control = {
  words: 128,
  magicWord: 0,
  sqEntriesWord: 1,
  cqEntriesWord: 2,
  /** Written by JavaScript: entries published. */
  sqTailWord: 16,
  /** Written by the reactor: entries consumed. */
  sqHeadWord: 32,
  /** Written by the reactor: completions published. */
  cqTailWord: 48,
  /** Written by JavaScript: completions consumed. */
  cqHeadWord: 64,
  /** 1 while JavaScript waits for a wake-up: the reactor clears it and signals once. */
  jsSleepingWord: 80,
  /**
   * Not 0 while JavaScript, which could run, lets the reactor on its processor go first: another number every time. Written by the
   * addon, on JavaScript's thread.
   */
  jsGivesWayWord: 81,
  /** 1 while the reactor waits on its eventfd: JavaScript clears it and kicks once. */
  reactorSleepingWord: 96,
  magic: 0x5350444b
} as const
