/** The thread that hashes. It knows nothing of Effect or of devices, so that it starts at once. */
import { createHash, type Hash } from "node:crypto"
import { parentPort } from "node:worker_threads"

/** To the thread; in order, for each hash by its number. */
export type Request =
  | { readonly type: "update"; readonly hash: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "digest"; readonly hash: number }
  | { readonly type: "forget"; readonly hash: number }

/** And back: memory that may be filled again, and what the whole of a file hashed to, in hex. */
export type Answer =
  | { readonly type: "free"; readonly memory: ArrayBuffer }
  | { readonly type: "digest"; readonly hash: number; readonly hex: string }

const port = parentPort
if (port === null) throw new Error("this module is the start of a thread")

const hashes = new Map<number, Hash>()

const hashOf = (number: number): Hash => {
  const known = hashes.get(number)
  if (known !== undefined) return known
  const hash = createHash("sha256")
  hashes.set(number, hash)
  return hash
}

const answer = (message: Answer, transferred: ReadonlyArray<ArrayBuffer>): void =>
  port.postMessage(message, transferred)

port.on("message", (request: Request) => {
  switch (request.type) {
    case "update": {
      const memory = request.bytes.buffer
      hashOf(request.hash).update(request.bytes)
      return answer({ type: "free", memory }, [memory])
    }
    case "digest": {
      const hex = hashOf(request.hash).digest("hex")
      hashes.delete(request.hash)
      return answer({ type: "digest", hash: request.hash, hex }, [])
    }
    case "forget":
      return void hashes.delete(request.hash)
  }
})
