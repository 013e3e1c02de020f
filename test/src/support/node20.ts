/**
 * Vitest reports failures with `Map.groupBy`, which Node has since version 21; this project supports 20.19. Without
 * it a failing test would end the run with a TypeError instead of its own message.
 */
const groupBy = <K, T>(items: Iterable<T>, keyOf: (item: T, index: number) => K): Map<K, Array<T>> => {
  const groups = new Map<K, Array<T>>()
  let index = 0
  for (const item of items) {
    const key = keyOf(item, index++)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [item])
    else group.push(item)
  }
  return groups
}

if (!("groupBy" in Map)) Object.defineProperty(Map, "groupBy", { value: groupBy, writable: true, configurable: true })
