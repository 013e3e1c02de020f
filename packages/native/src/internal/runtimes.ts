/**
 * JavaScript runtimes that load native addons and lack what this one stands on. They are told by what they say of themselves, because
 * a try ends the process (Bun), never ends (Deno), or fails at the first buffer (Electron).
 */

/** `process.versions`, of any runtime. */
export type Versions = Readonly<Record<string, string | undefined>>

/** Why the addon cannot be used in the runtime of these versions; undefined where it can. */
export const unusable = (versions: Versions): string | undefined => {
  const { bun, deno, electron } = versions
  if (bun !== undefined) {
    return `Bun ${bun} has no uv_poll, by which SPDK's threads wake JavaScript; libspdk needs Node.js`
  }
  if (deno !== undefined) {
    return `Deno ${deno} has no libuv loop, by which SPDK's threads wake JavaScript; libspdk needs Node.js`
  }
  if (electron !== undefined) {
    return `Electron ${electron} allows no external buffers, in which SPDK's memory is seen; libspdk needs Node.js, in a process beside it`
  }
  return undefined
}
