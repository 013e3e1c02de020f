/** The ways to read and write a range of whole sectors: all of them leave the same behind. */
import type { Blob, BlobIo } from "@effect-spdk/blobstore/Blob"
import type { BdevBatch } from "@effect-spdk/core/Bdev"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Model from "@effect-spdk/core/SimulationModel"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

const sector = Model.stampBytes

/** `halves`: as two ranges that meet inside of a sector, at the same time. `again`: a prepared batch that runs twice. */
export type Way = "bytes" | "vectored" | "buffer" | "batch" | "again" | "stream" | "halves" | "channel"
export const ways: ReadonlyArray<Way> = ["bytes", "vectored", "buffer", "batch", "again", "stream", "halves", "channel"]

/** The sector in which the halves of so many meet. */
export const middleOf = (count: number): number => count >> 1

const joint = (count: number): number => middleOf(count) * sector + 200

export const write = (open: Blob, way: Way, offset: number, bytes: Uint8Array) => {
  const count = bytes.length / sector
  switch (way) {
    case "vectored":
      return withSectors(count, (buffers) => Effect.suspend(() => open.writev(offset, filled(buffers, bytes))))
    case "buffer":
      return withBuffer(bytes.length, (buffer) => Effect.suspend(() => open.write(offset, fill(buffer, bytes))))
    case "batch":
      return withSectors(count, (buffers) =>
        Effect.suspend(() => open.writeBatch(entriesOf(offset, filled(buffers, bytes))))
      )
    case "again":
      return withSectors(count, (buffers) =>
        Effect.suspend(() => open.prepareWrites(entriesOf(offset, filled(buffers, bytes)))).pipe(Effect.flatMap(twice))
      )
    case "stream":
      return Stream.run(
        Stream.fromIterable(pieces(bytes, 700)),
        open.sink({ offsetBytes: offset, lengthBytes: bytes.length, chunkBytes: 1024, concurrency: 2 })
      )
    case "halves": {
      const at = joint(count)
      return Effect.all(
        [open.writeBytes(offset, bytes.subarray(0, at)), open.writeBytes(offset + at, bytes.subarray(at))],
        { concurrency: 2, discard: true }
      )
    }
    case "channel":
      return throughChannel(open, (io) => io.writeBytes(offset, bytes))
    default:
      return open.writeBytes(offset, bytes)
  }
}

export const read = (open: Blob, way: Way, offset: number, count: number) => {
  const length = count * sector
  switch (way) {
    case "vectored":
      return withSectors(count, (buffers) => Effect.map(open.readv(offset, buffers), () => joined(buffers)))
    case "buffer":
      return withBuffer(length, (buffer) => Effect.map(open.read(offset, buffer), () => joined([buffer])))
    case "batch":
      return withSectors(count, (buffers) =>
        Effect.map(open.readBatch(entriesOf(offset, buffers)), () => joined(buffers))
      )
    case "again":
      return withSectors(count, (buffers) =>
        Effect.map(Effect.flatMap(open.prepareReads(entriesOf(offset, buffers)), twice), () => joined(buffers))
      )
    case "stream":
      return Effect.map(
        Stream.runCollect(open.stream({ offsetBytes: offset, lengthBytes: length, chunkBytes: 1024, concurrency: 2 })),
        (chunks) => new Uint8Array(Buffer.concat(chunks))
      )
    case "halves": {
      const at = joint(count)
      return Effect.map(
        Effect.all([open.readBytes(offset, at), open.readBytes(offset + at, length - at)], { concurrency: 2 }),
        (halves) => new Uint8Array(Buffer.concat(halves))
      )
    }
    case "channel":
      return throughChannel(open, (io) => io.readBytes(offset, length))
    default:
      return open.readBytes(offset, length)
  }
}

const throughChannel = <A, E>(open: Blob, use: (io: BlobIo) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(open.channel, use))

const twice = (batch: BdevBatch) => Effect.andThen(batch.run, batch.run)

type Buffers = ReadonlyArray<DmaBuffer.DmaBuffer>

const withBuffer = <A, E, R>(length: number, use: (buffer: DmaBuffer.DmaBuffer) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(DmaBuffer.make(length), use))

const withSectors = <A, E, R>(count: number, use: (buffers: Buffers) => Effect.Effect<A, E, R>) =>
  Effect.scoped(
    Effect.flatMap(
      Effect.forEach(Array.from({ length: count }), () => DmaBuffer.make(sector)),
      use
    )
  )

const fill = (buffer: DmaBuffer.DmaBuffer, bytes: Uint8Array): DmaBuffer.DmaBuffer => {
  buffer.bytes.set(bytes)
  return buffer
}

const filled = (buffers: Buffers, bytes: Uint8Array): Buffers => {
  buffers.forEach((buffer, i) => buffer.bytes.set(bytes.subarray(i * sector, (i + 1) * sector)))
  return buffers
}

const joined = (buffers: Buffers): Uint8Array => new Uint8Array(Buffer.concat(buffers.map(({ bytes }) => bytes)))

const entriesOf = (offset: number, buffers: Buffers) =>
  buffers.map((buffer, i) => ({ offsetBytes: offset + i * sector, buffer }))

const pieces = (bytes: Uint8Array, length: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / length) }, (_, i) => bytes.subarray(i * length, (i + 1) * length))
