/**
 * A lock between processes on one machine: a file that holds its owner's process id. It is made by `link`, so it
 * never exists without the id, and a lock whose owner is gone is taken over.
 */
import { linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

const pollMillis = 200

const isAlive = (pid) => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === "EPERM"
  }
}

const readOwner = (path) => {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    return undefined
  }
}

const remove = (path) => {
  try {
    unlinkSync(path)
  } catch (error) {
    if (error.code !== "ENOENT") throw error
  }
}

const tryLink = (from, to) => {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (error.code === "EEXIST") return false
    throw error
  }
}

/** Moves a dead owner's lock away. When somebody else was faster and the lock is a live one again, gives it back. */
const takeAway = (path, deadOwner, ticket) => {
  const aside = `${ticket}.stale`
  try {
    renameSync(path, aside)
  } catch (error) {
    if (error.code === "ENOENT") return
    throw error
  }
  if (readOwner(aside) !== deadOwner) tryLink(aside, path)
  remove(aside)
}

/** Runs `body` while holding the lock. `onWait` is called once, with the owner's process id, if there is a wait. */
export const withLock = async (path, onWait, body) => {
  mkdirSync(dirname(path), { recursive: true })
  const ticket = `${path}.${process.pid}`
  writeFileSync(ticket, `${process.pid}\n`)
  const release = () => remove(path)
  try {
    let told = false
    while (!tryLink(ticket, path)) {
      const owner = readOwner(path)
      if (owner !== undefined && !isAlive(Number(owner))) {
        takeAway(path, owner, ticket)
        continue
      }
      if (!told && owner !== undefined) {
        told = true
        onWait(owner)
      }
      await sleep(pollMillis)
    }
  } finally {
    remove(ticket)
  }
  process.once("exit", release)
  try {
    return await body()
  } finally {
    process.removeListener("exit", release)
    release()
  }
}
