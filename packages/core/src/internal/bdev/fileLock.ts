/**
 * One writer at a time for the file below a bdev: an exclusive flock(2), which the kernel releases when the process dies. It belongs
 * to the inode, so that other names of the file do not get around it, and both engines take the same one.
 *
 * Node cannot call flock, and the embedded engine has no native code: the flock program of util-linux, or busybox, locks a descriptor
 * that it is handed. The lock belongs to the open file, which stays open here when the program has ended.
 */
import { spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Busy, SpdkError } from "../../SpdkError.ts"

type Outcome =
  | { readonly _tag: "Locked" }
  | { readonly _tag: "Taken" }
  | { readonly _tag: "Failed"; readonly why: string }

const locked: Outcome = { _tag: "Locked" }
const taken: Outcome = { _tag: "Taken" }

/** What both flock programs answer when somebody else has the lock. */
const takenCode = 1

const tryLock = (fd: number): Promise<Outcome> =>
  new Promise((resolve) => {
    const failed = (why: string) => resolve({ _tag: "Failed", why })
    const child = spawn("flock", ["-n", "-x", "3"], { stdio: ["ignore", "ignore", "pipe", fd] })
    let said = ""
    // It is a pipe, and so it is there.
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (said += text))
    child.on("error", (error: NodeJS.ErrnoException) =>
      failed(error.code === "ENOENT" ? "the flock program is not installed" : error.message)
    )
    child.on("close", (code, signal) => {
      if (code === 0) resolve(locked)
      else if (code === takenCode && said === "") resolve(taken)
      else failed(`flock ended with ${signal ?? code}: ${said.trim()}`)
    })
  })

/** Who holds a lock on this inode, as far as /proc shows it to this user. */
const holderOf = async (inode: number): Promise<string> => {
  const ofInode = new RegExp(`^lock:\\s.*\\bFLOCK\\b.*:${inode} `, "m")
  const pids = await fs.readdir("/proc").catch(() => [])
  for (const pid of pids.filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}/fdinfo`
    for (const fd of await fs.readdir(folder).catch(() => [])) {
      const info = await fs.readFile(`${folder}/${fd}`, "utf8").catch(() => "")
      if (!ofInode.test(info)) continue
      if (Number(pid) === process.pid) return "a bdev of this process"
      const command = await fs.readFile(`/proc/${pid}/comm`, "utf8").catch(() => "")
      return `process ${pid}${command === "" ? "" : ` (${command.trim()})`}`
    }
  }
  return "another process"
}

/**
 * The open files behind the locks. Node closes a file that nobody refers to any more, and a program whose fibers wait for what has
 * no reference to them, such as `Effect.never`, may be collected with all of its scopes.
 */
const held = new Set<fs.FileHandle>()

/** Once: what a machine lacks it lacks for every file. */
let hasWarned = false

const warnOnce = (path: string, why: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (hasWarned) return Effect.void
    hasWarned = true
    return Effect.logWarning(`${path} is not locked against other writers: ${why}`)
  })

/**
 * Holds the lock until the scope closes. `Busy` names the holder. What cannot be opened here for writing is not locked: its bdev
 * says why it is not made, or it is a file that only the server sees.
 */
export const lockFile = (operation: string, path: string): Effect.Effect<void, SpdkError<Busy>, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.gen(function* () {
        const file = yield* Effect.promise(() => fs.open(path, "r+").catch(() => undefined))
        if (file === undefined) return undefined
        const outcome = yield* Effect.promise(() => tryLock(file.fd))
        if (outcome._tag === "Locked") {
          held.add(file)
          return file
        }
        const holder = yield* Effect.promise(async () => {
          const { ino } = await file.stat()
          await file.close()
          return outcome._tag === "Taken" ? await holderOf(ino) : ""
        })
        if (outcome._tag === "Failed") {
          yield* warnOnce(path, outcome.why)
          return undefined
        }
        const detail = `its file is open for writing in ${holder}`
        return yield* Effect.fail(new SpdkError({ reason: new Busy({ operation, resource: path, detail }) }))
      }),
      (file) =>
        Effect.promise(async () => {
          if (file === undefined) return
          held.delete(file)
          await file.close()
        })
    )
  )
