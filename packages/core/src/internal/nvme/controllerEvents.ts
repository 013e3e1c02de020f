/**
 * The events of one controller, to any number of streams, each with a bound of its own.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { ControllerEvent } from "../../NvmeController.ts"

/** Of a stream that nobody reads from. */
const maxWaiting = 256

type Listener = (event: ControllerEvent | "closed") => void

export class ControllerEvents {
  private readonly listeners = new Set<Listener>()
  /** How it ended, for those who come too late. */
  private end: ControllerEvent | "closed" | undefined = undefined

  /** JS thread. Nothing after "closed" or `Removed`. */
  publish(event: ControllerEvent | "closed"): void {
    if (this.end !== undefined) return
    if (event === "closed" || event._tag === "Removed") this.end = event
    for (const listener of this.listeners) listener(event)
    if (this.end !== undefined) this.listeners.clear()
  }

  get stream(): Stream.Stream<ControllerEvent> {
    return Stream.callback<ControllerEvent>(
      (queue) =>
        Effect.suspend(() => {
          const listener: Listener = (event) => deliver(queue, event)
          if (this.end !== undefined) {
            listener(this.end)
            return Effect.void
          }
          this.listeners.add(listener)
          return Effect.addFinalizer(() => Effect.sync(() => this.listeners.delete(listener)))
        }),
      { bufferSize: maxWaiting, strategy: "sliding" }
    )
  }
}

const deliver = (queue: Queue.Queue<ControllerEvent, Cause.Done>, event: ControllerEvent | "closed"): void => {
  if (event !== "closed") Queue.offerUnsafe(queue, event)
  if (event === "closed" || event._tag === "Removed") Queue.endUnsafe(queue)
}
