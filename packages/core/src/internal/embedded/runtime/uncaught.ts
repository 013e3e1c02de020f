/**
 * Functions of the user's, and of fibers, that an engine calls in the middle of its work: what they throw is an uncaught
 * exception of its own, and cuts nothing short.
 */
export const throwAlone = (error: unknown): void => {
  queueMicrotask(() => {
    throw error
  })
}

/** Calls each of them, whatever the others throw. */
export const callAll = (functions: Iterable<() => void>): void => {
  for (const call of functions) {
    try {
      call()
    } catch (error) {
      throwAlone(error)
    }
  }
}
