/** Runs the programs of children/ in Node processes of their own, and waits for what they say and how they end. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Child {
  readonly process: ChildProcessWithoutNullStreams
  /** Waits until the program prints a line that fits; fails when it ends without one. */
  readonly line: (pattern: RegExp) => Effect.Effect<RegExpExecArray>
  /** Waits until the program has printed so many lines that start like this. */
  readonly lines: (prefix: string, count: number) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
  readonly stdout: () => string
}

const deadlineMillis = 60_000

/** Starts a program; kills it with the scope. */
export const start = (program: string, args: ReadonlyArray<string>): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      // Node 20 runs no TypeScript: `tsc -b` has made this file before the tests began.
      const path = fileURLToPath(new URL(`../../dist/children/${program}.js`, import.meta.url))
      assert.isTrue(existsSync(path), `${path} is built`)
      return watch(spawn(process.execPath, [path, ...args]))
    }),
    (child) => Effect.sync(() => void child.process.kill("SIGKILL"))
  )

/** Runs a program to its end. */
export const run = (program: string, args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(start(program, args), (child) => child.ended))

const watch = (child: ChildProcessWithoutNullStreams): Child => {
  let stdout = ""
  let stderr = ""
  let ended: Ended | undefined
  const listeners = new Set<() => void>()
  const changed = () => {
    for (const listener of [...listeners]) listener()
  }
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text
    changed()
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
  })
  child.on("close", (code, signal) => {
    ended = { code, signal, stdout, stderr }
    changed()
  })
  const when = <A>(what: string, look: () => A | undefined): Effect.Effect<A> =>
    Effect.callback<A>((resume) => {
      const finish = (effect: Effect.Effect<A>) => {
        clearTimeout(timer)
        listeners.delete(check)
        resume(effect)
      }
      const check = () => {
        const found = look()
        if (found !== undefined) finish(Effect.succeed(found))
        else if (ended !== undefined) finish(Effect.die(new Error(`ended before ${what}: ${JSON.stringify(ended)}`)))
      }
      const timer = setTimeout(
        () =>
          finish(Effect.die(new Error(`no ${what} within ${deadlineMillis} ms; stdout ${stdout}; stderr ${stderr}`))),
        deadlineMillis
      )
      listeners.add(check)
      check()
      return Effect.sync(() => {
        clearTimeout(timer)
        listeners.delete(check)
      })
    })
  return {
    process: child,
    line: (pattern) => when(`a line ${pattern}`, () => pattern.exec(stdout) ?? undefined),
    lines: (prefix, count) => {
      let at = 0
      let seen = 0
      return when(`${count} lines "${prefix}"`, () => {
        for (let end = stdout.indexOf("\n", at); end !== -1; end = stdout.indexOf("\n", at)) {
          if (stdout.startsWith(prefix, at)) seen++
          at = end + 1
        }
        return seen >= count ? true : undefined
      })
    },
    ended: when("the end", () => ended),
    stdout: () => stdout
  }
}

/** Fails with everything the program said unless it ended by itself with this exit code. */
export const expectExit = (ended: Ended, code: number): void => {
  assert.deepStrictEqual(
    { code: ended.code, signal: ended.signal },
    { code, signal: null },
    `${ended.stdout}\n${ended.stderr}`
  )
}
