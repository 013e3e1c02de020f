/** Whether there is an SPDK here: for the tests of every package. The examples have their own, in support/run.ts. */
import { spawnSync } from "node:child_process"

const pkgConfigModule = "spdk_event"

/** Why there is no libspdk here; undefined when there is. */
export const libspdkMissing: string | undefined = (() => {
  const found = spawnSync("pkg-config", ["--exists", pkgConfigModule])
  if (found.error !== undefined) return "no SPDK: pkg-config is not installed"
  return found.status === 0 ? undefined : `no SPDK: pkg-config ${pkgConfigModule} not found`
})()
