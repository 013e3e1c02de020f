/** Child processes for the scripts: one function, which never uses a shell, so that paths may hold spaces. */
import { spawn } from "node:child_process"
import { constants } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** The folder of the repository. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export const inRoot = (...parts) => join(root, ...parts)

/** An error whose message is all that a person needs. */
export class SetupError extends Error {
  name = "SetupError"
}

/** A signal ended a step: nothing more is to be done. */
export class Interrupted extends SetupError {
  constructor(exitCode) {
    super("interrupted")
    this.exitCode = exitCode
  }
}

/** The signals by which people and supervisors end a run. */
const forwarded = ["SIGINT", "SIGTERM", "SIGHUP"]

const signalExitCode = (signal) => 128 + (constants.signals[signal] ?? 0)

/** True for processes that such a signal ended, and for those that ended themselves because of one. A crash is none. */
export const isInterruption = (exitCode) => forwarded.some((signal) => signalExitCode(signal) === exitCode)

/**
 * Runs a program to its end and resolves with its exit code (128 + number for a signal) and, with `capture`,
 * what it printed, which `show` passes on as it comes. Signals that reach this process go on to the child, which
 * decides how to end.
 */
export const exec = (command, args, { capture = false, show = !capture, cwd = root, env = process.env } = {}) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: capture ? ["ignore", "pipe", "pipe"] : "inherit" })
    const chunks = []
    const keep = (into) => (chunk) => {
      chunks.push(chunk)
      if (show) into.write(chunk)
    }
    child.stdout?.on("data", keep(process.stdout))
    child.stderr?.on("data", keep(process.stderr))
    const forward = (signal) => child.kill(signal)
    for (const signal of forwarded) process.on(signal, forward)
    const done = (code, extra = "") => {
      for (const signal of forwarded) process.removeListener(signal, forward)
      resolve({ code, output: Buffer.concat(chunks).toString("utf8") + extra })
    }
    child.on("error", (error) => done(127, `${command}: ${error.message}\n`))
    child.on("close", (code, signal) => done(code ?? signalExitCode(signal)))
  })

/** Runs a script of ours, or a tool's JavaScript entry, with the Node that runs this. */
export const node = (script, args = [], options) => exec(process.execPath, [script, ...args], options)

const isNpmCli = (path) => path !== undefined && /[\\/]npm-cli\.js$/.test(path)

/** Runs npm: the one that started this script where there is one. */
export const npm = (args, options) => {
  const cli = process.env.npm_execpath
  return isNpmCli(cli) ? node(cli, args, options) : exec("npm", args, options)
}
