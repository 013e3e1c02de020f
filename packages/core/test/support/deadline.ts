/**
 * A deadline that counts only the time this process was there for: where the machine stops it for seconds, those are no fault of
 * what is waited for. To be asked again and again; says whether it is over.
 */
export const deadlineIn = (millis: number): (() => boolean) => {
  let left = millis
  let last = performance.now()
  return () => {
    const now = performance.now()
    left -= Math.min(100, now - last)
    last = now
    return left <= 0
  }
}
