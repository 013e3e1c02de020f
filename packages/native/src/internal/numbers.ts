/** Numbers by which the two sides of the addon name things: 32 bits, all of them used before one comes again. */

/** The next one after `last` that names nothing. 0 is no number. */
export const following = (last: number, isTaken: (id: number) => boolean): number => {
  let next = last
  do next = next === 0xffffffff ? 1 : next + 1
  while (isTaken(next))
  return next
}
