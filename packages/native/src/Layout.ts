/**
 * The layout of the rings that JavaScript and a reactor share.
 *
 * This file is the single source. `npm run build` generates `addon/core/ring_layout.h` from it
 * (scripts/generate-layout.mjs). Static assertions in C++ verify the sizes. `npm run check` compares the two files.
 *
 * All words are 32 bits, little endian, in host memory. Indexes that end in `Word` count 32-bit words from the start of
 * their structure.
 */

/** The operation of a submission entry. The numbers are part of the layout. */
export const Opcode = {
  /** Completes in order on the thread. Carries messages of `SpdkThread.send` and `call`. */
  Nop: 0,
  Read: 1,
  Write: 2,
  Flush: 3,
  Unmap: 4,
  WriteZeroes: 5,
  Reset: 6,
  /**
   * Asks the device to abort a request. The entry names the request in the words of the channel. Completes when the
   * device has been asked, not when the request has ended.
   */
  Abort: 7,
  /** Completes after `offsetBlocks` microseconds on the thread's own timer. */
  Timer: 8,
  /**
   * Any command to an NVMe namespace. It has one or two segments: the 64 bytes of the command, and its data. The
   * completion overwrites the first 16 bytes of the command.
   */
  NvmeIo: 9
} as const
export type Opcode = (typeof Opcode)[keyof typeof Opcode]

/** The traits of an operation, for both engines and both drivers. */
export interface OperationTraits {
  /** SPDK's name of the I/O type, as in `supported_io_types`. null when the entry reaches no device. */
  readonly ioType: string | null
  /** The descriptor must be open for writing. */
  readonly writes: boolean
  /** The entry names a range of blocks, which must lie on the device. */
  readonly hasRange: boolean
  /** The memory that the entry names. "in": the device fills it. "command": an NVMe command with its own data. */
  readonly data: "none" | "in" | "out" | "command"
}

/**
 * The table of operations. The checks of the rings, the masks of allowed operations of a handle, and
 * `addon/core/operations.h` come from this table. Each bdev module handles its opcodes in a switch or a record that
 * must list all opcodes.
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
 * The reason for which the engine refused an entry before the device received it. 0: the device answered. The status
 * beside it is a negative errno.
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
 * A submission entry: 8 words, half a cache line. A 64-bit value that does not fit, which is rare, uses a `Wide` slot
 * after the entry.
 */
export const Sqe = {
  words: 8,
  /**
   * The opcode is in the low byte, the segment count in bits 8 to 14. Bit 15: a `Wide` slot follows. The id is in the
   * upper half.
   */
  opcodeWord: 0,
  segmentsShift: 8,
  segmentsMask: 0x7f,
  wideBit: 0x8000,
  idShift: 16,
  idGenerationWord: 1,
  /** The slot of the channel is in the lower half, the slot of the slab in the upper half. */
  handlesWord: 2,
  slabShift: 16,
  /** The slot number for no channel or no slab. Real slots have lower numbers. */
  noSlot: 0xffff,
  channelGenerationWord: 3,
  slabGenerationWord: 4,
  /** The byte offset into the slab. The length is the length of the blocks. */
  slabOffsetWord: 5,
  offsetBlocksWord: 6,
  lengthBlocksWord: 7,
  /**
   * For `Abort`, which has no channel: the id and generation of the request to abort are in the words of the channel.
   */
  targetIdWord: 2,
  targetGenerationWord: 3
} as const

/** The upper halves of an entry's offset and length. */
export const Wide = {
  offsetBlocksWord: 0,
  lengthBlocksWord: 1
} as const

/**
 * One piece of a vectored entry: 4 words, so a ring slot holds two. `ceil(segments / 2)` slots of segments follow a
 * vectored entry, after its `Wide` slot if it has one. All of them are published together.
 */
export const Segment = {
  words: 4,
  slabSlotWord: 0,
  slabGenerationWord: 1,
  slabOffsetWord: 2,
  lengthBytesWord: 3,
  perSlot: 2,
  /** The maximum number of pieces of one vectored request. */
  max: 64
} as const

/** A completion entry: 4 words, a quarter of a cache line. */
export const Cqe = {
  words: 4,
  /** The id of the request. For a tick, the id of the poller. */
  idWord: 0,
  idGenerationWord: 1,
  /** 0, or a negative errno. For a tick: the number of runs that the tick reports (saturates). */
  statusWord: 2,
  /** A `Detail` in the low byte, the NVMe status in bits 8 to 25, a `CompletionKind` in bit 31. */
  reasonWord: 3,
  detailMask: 0xff,
  /** The NVMe status of a failed request: `0x10000 | sct << 8 | sc`, and 0x20000 for "do not retry". 0 when there is none. */
  nvmeShift: 8,
  nvmeMask: 0x3ffff,
  kindShift: 31
} as const

export const CompletionKind = { Request: 0, Tick: 1 } as const

/**
 * The control block in front of the rings. Each position, and each state of a side, has its own cache line (16 words).
 * Ring positions count entries and wrap at 2^32.
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
  /** 1 while JavaScript waits for a wake-up. The reactor clears the word and signals once. */
  jsSleepingWord: 80,
  /**
   * Not 0 while runnable JavaScript yields to the reactor on its processor. The value changes every time. Written by
   * the addon, on JavaScript's thread.
   */
  jsGivesWayWord: 81,
  /** 1 while the reactor waits on its eventfd. JavaScript clears the word and kicks once. */
  reactorSleepingWord: 96,
  magic: 0x5350444b
} as const
