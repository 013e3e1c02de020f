/** The reactor's side of the rings in JavaScript, and a completion that remembers. */
import { CompletionKind, Control, Cqe, Sqe } from "@effect-spdk/native/Layout"
import type { Completion } from "@effect-spdk/native/Queue"
import { decodeEntry } from "./entry.ts"

/** The other side of the rings, on this thread: takes entries out and answers them when it is told to. */
export class FakeReactor {
  readonly memory: ArrayBuffer
  readonly words: Uint32Array
  readonly sqEntries: number
  readonly cqEntries: number
  head: number
  tail: number

  /** `age`: how many entries of either kind have gone through it. */
  constructor(sqEntries = 16, cqEntries = 512, age = 0) {
    this.sqEntries = sqEntries
    this.cqEntries = cqEntries
    this.memory = new ArrayBuffer(4 * (Control.words + sqEntries * Sqe.words + cqEntries * Cqe.words))
    this.words = new Uint32Array(this.memory)
    this.words[Control.magicWord] = Control.magic
    this.words[Control.sqEntriesWord] = sqEntries
    this.words[Control.cqEntriesWord] = cqEntries
    this.head = this.tail = age >>> 0
    for (const word of [Control.sqTailWord, Control.sqHeadWord, Control.cqTailWord, Control.cqHeadWord]) {
      this.words[word] = age
    }
  }

  /** The published entries, as raw words, segments included. */
  take(): Array<Uint32Array> {
    const taken: Array<Uint32Array> = []
    while (this.head !== this.words[Control.sqTailWord]) {
      const slot = (ahead: number) => {
        const at = Control.words + ((this.head + ahead) % this.sqEntries) * Sqe.words
        return [...this.words.slice(at, at + Sqe.words)]
      }
      const { slots } = decodeEntry(slot(0))
      taken.push(Uint32Array.from(Array.from({ length: slots }, (_, ahead) => slot(ahead)).flat()))
      this.head = (this.head + slots) >>> 0
    }
    this.words[Control.sqHeadWord] = this.head
    return taken
  }

  answer(
    id: number,
    generation: number,
    status = 0,
    detail = 0,
    nvme = 0,
    kind: number = CompletionKind.Request,
    runs = 0
  ) {
    const at = Control.words + this.sqEntries * Sqe.words + (this.tail % this.cqEntries) * Cqe.words
    this.words[at + Cqe.idWord] = id
    this.words[at + Cqe.idGenerationWord] = generation
    this.words[at + Cqe.statusWord] = kind === CompletionKind.Tick ? runs : status
    this.words[at + Cqe.reasonWord] = detail | (nvme << Cqe.nvmeShift) | (kind << Cqe.kindShift)
    this.tail = (this.tail + 1) >>> 0
    this.words[Control.cqTailWord] = this.tail
  }

  answerEntry(entry: Uint32Array, status = 0) {
    const { generation, id } = decodeEntry(entry)
    this.answer(id, generation, status)
  }
}

export class Recorder implements Completion {
  readonly seen: Array<{ index: number; status: number; detail: number; nvme: number }> = []
  complete(index: number, status: number, detail: number, nvme: number): void {
    this.seen.push({ index, status, detail, nvme })
  }
}
