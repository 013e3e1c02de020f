/** What the examples' tests share. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"

const pkgConfigModule = "spdk_event"

const libspdkMissing: string | undefined =
  spawnSync("pkg-config", ["--exists", pkgConfigModule]).status === 0
    ? undefined
    : `no SPDK: pkg-config ${pkgConfigModule} not found`

/** Registers tests that need libspdk; without it they are skipped under a name that says why. */
export const describeLibspdk = (name: string, options: { readonly timeout?: number }, tests: () => void): void => {
  if (libspdkMissing === undefined) describe(`libspdk ${name}`, options, tests)
  else describe.skip(`libspdk ${name} [skipped: ${libspdkMissing}]`, options, tests)
}

/** Runs an example as a user does: the built program, in a folder of its own, in a process of its own. */
export const runExample = (
  name: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): { readonly status: number | null; readonly stdout: string; readonly stderr: string } => {
  const folder = mkdtempSync(join(tmpdir(), "effect-spdk-example-"))
  try {
    const program = fileURLToPath(new URL(`../dist/${name}/src/main.js`, import.meta.url))
    const options = { cwd: folder, env: { ...process.env, ...env }, encoding: "utf8", timeout: 110_000 } as const
    const { status, stderr, stdout } = spawnSync(process.execPath, [program, ...args], options)
    return { status, stdout, stderr }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
