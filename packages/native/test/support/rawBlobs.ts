/** Blobstores and blobs through the bare addon, and a queue that counts. */
import type { BlobstoreArguments } from "@effect-spdk/native/Addon"
import { slotsOfEntry } from "./entry.ts"
import { type Answer, type RawCompletion, type RawQueue, type RawSpdk, until } from "./rawSpdk.ts"

export type BlobAnswer = Answer & { readonly bytes?: Uint8Array }

export const numbersOf = (bytes: Uint8Array | undefined): ReadonlyArray<number> =>
  bytes === undefined ? [] : [...new Float64Array(new Uint8Array(bytes).buffer)]

export class RawBlobs {
  readonly spdk: RawSpdk

  constructor(spdk: RawSpdk) {
    this.spdk = spdk
  }

  ask(name: string, target: number, args: BlobstoreArguments = {}): Promise<BlobAnswer> {
    const { numbers = [], texts = [], values = [] } = args
    return this.spdk.ask((addon, request) => addon.blobstoreCall(request, name, target, numbers, texts, values))
  }

  async get(name: string, target: number, args: BlobstoreArguments = {}): Promise<BlobAnswer> {
    const answer = await this.ask(name, target, args)
    if (answer.status !== 0) throw new Error(`${name}: status ${answer.status}`)
    return answer
  }

  /** With clusters of 64 KiB. */
  async init(bdev: string): Promise<number> {
    return (await this.get("init", 0, { numbers: [65_536, 64, 2], texts: [bdev, "RAW"] })).a
  }

  async create(store: number, clusters: number, thin = false, extentTable = true): Promise<number> {
    const numbers = [clusters, thin ? 1 : 0, 0, extentTable ? 1 : 0]
    const { bytes } = await this.get("create", store, { numbers, texts: [""] })
    return numbersOf(bytes)[0] ?? 0
  }

  async open(store: number, id: number): Promise<number> {
    return (await this.get("open", store, { numbers: [id, 0] })).a
  }

  close(target: number): Promise<Answer> {
    return this.spdk.ask((addon, request) => addon.bdevClose(request, target))
  }

  async channel(queue: RawQueue, target: number): Promise<readonly [slot: number, generation: number]> {
    const { a, b } = await this.spdk.get((addon, request) => addon.channelOpen(request, queue.id, target))
    return [a, b]
  }
}

/** One request over `blocks` from `offset`, with memory of the slab from `slabOffset`. */
export const submit = (
  queue: RawQueue,
  opcode: number,
  id: number,
  channel: ArrayLike<number>,
  slab: readonly [number, number],
  offset: number,
  blocks: number,
  slabOffset = 0
): void => {
  const fields = { channel, slab, slabOffset, offsetBlocks: offset, lengthBlocks: blocks }
  for (const slot of slotsOfEntry(opcode, id, fields)) queue.write(slot)
}

export const collect = async (queue: RawQueue, count: number): Promise<ReadonlyArray<RawCompletion>> => {
  const seen: Array<RawCompletion> = []
  await until(`${count} completions`, () => {
    seen.push(...queue.take())
    return seen.length >= count
  })
  return seen
}
