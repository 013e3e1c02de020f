/**
 * Each measurement has a process of its own: SPDK starts once per process, and no measurement inherits another's
 * heap or compiled code. The reactor runs on core 1, as bdevperf's does, and the JavaScript thread on core 0.
 */
import { spawn } from "node:child_process"
import { availableParallelism } from "node:os"

export const javaScriptCore = 0
export const reactorCore = availableParallelism() > 1 ? 1 : 0

const linesOfFailure = 8

export interface Ended {
  readonly stdout: string
  readonly stderr: string
}

/** Of what a failed program printed, the part that says why. */
const excerpt = (text: string): string => text.trim().split("\n").slice(0, linesOfFailure).join("\n")

/** Runs a program to its end. Rejects, with what it printed, when it fails or takes longer than `limitMillis`. */
export const run = (
  program: string,
  args: ReadonlyArray<string>,
  options: {
    readonly limitMillis: number
    readonly env?: Readonly<Record<string, string>>
    readonly onSpawn?: (pid: number) => void
  }
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, [...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.env }
    })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    const limit = setTimeout(() => child.kill("SIGKILL"), options.limitMillis)
    const stop = () => child.kill("SIGTERM")
    process.once("exit", stop)
    const finish = () => {
      clearTimeout(limit)
      process.removeListener("exit", stop)
    }
    child.once("spawn", () => {
      if (child.pid !== undefined) options.onSpawn?.(child.pid)
    })
    child.once("error", (error) => {
      finish()
      reject(error)
    })
    child.once("close", (code, signal) => {
      finish()
      if (code === 0) resolve({ stdout, stderr })
      else reject(new Error(`${program} ended with ${signal ?? code}\n${excerpt(stderr)}\n${excerpt(stdout)}`.trim()))
    })
  })

/** Runs a script with this Node. */
export const runNode = (
  script: string,
  args: ReadonlyArray<string>,
  options: { readonly limitMillis: number; readonly env?: Readonly<Record<string, string>> }
): Promise<Ended> => run(process.execPath, [script, ...args], options)

export interface Served {
  /** Ends the program, and waits until it has ended. */
  readonly stop: () => Promise<void>
}

/** Starts a program that serves until it is told to end; resolves when it has printed `ready`. */
export const serve = (
  program: string,
  args: ReadonlyArray<string>,
  options: { readonly ready: RegExp; readonly limitMillis: number }
): Promise<Served> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, [...args], { stdio: ["ignore", "pipe", "pipe"] })
    const kill = () => child.kill("SIGKILL")
    process.once("exit", kill)
    let printed = ""
    const ended = new Promise<void>((end) => {
      child.once("close", (code, signal) => {
        process.removeListener("exit", kill)
        clearTimeout(limit)
        reject(new Error(`${program} ended with ${signal ?? code}\n${excerpt(printed)}`))
        end()
      })
    })
    const stop = async () => {
      const last = setTimeout(kill, options.limitMillis)
      child.kill("SIGTERM")
      await ended
      clearTimeout(last)
    }
    const limit = setTimeout(kill, options.limitMillis)
    const read = (text: string) => {
      if (options.ready.test(printed)) return
      printed += text
      if (!options.ready.test(printed)) return
      clearTimeout(limit)
      resolve({ stop })
    }
    child.stdout.setEncoding("utf8").on("data", read)
    child.stderr.setEncoding("utf8").on("data", read)
    child.once("error", reject)
  })
