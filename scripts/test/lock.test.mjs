/** The lock between two set-ups of one clone, with real processes. */
import { execFile } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterEach, beforeEach, expect, it } from "vitest"
import { withLock } from "../lib/lock.mjs"

const lockModule = new URL("../lib/lock.mjs", import.meta.url).href

let folder
let lock
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "effect spdk lock-"))
  lock = join(folder, "setup.lock")
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const runNode = (script) => promisify(execFile)(process.execPath, ["--input-type=module", "-e", script])

/** Adds one to the number in a file, slowly: two of them at once lose a step. */
const increments = (counter, times) => `
  import { readFileSync, writeFileSync } from "node:fs"
  import { setTimeout as sleep } from "node:timers/promises"
  import { withLock } from ${JSON.stringify(lockModule)}
  for (let turn = 0; turn < ${times}; turn++) {
    await withLock(${JSON.stringify(lock)}, () => {}, async () => {
      const value = Number(readFileSync(${JSON.stringify(counter)}, "utf8"))
      await sleep(5)
      writeFileSync(${JSON.stringify(counter)}, String(value + 1))
    })
  }`

it("lets one process in at a time", async () => {
  const counter = join(folder, "counter")
  writeFileSync(counter, "0")
  await Promise.all([1, 2, 3].map(() => runNode(increments(counter, 4))))
  expect(readFileSync(counter, "utf8")).toBe("12")
  expect(existsSync(lock)).toBe(false)
})

it("takes over the lock of a process that is gone", async () => {
  const { stdout } = await runNode("console.log(process.pid)")
  writeFileSync(lock, stdout)
  expect(
    await withLock(
      lock,
      () => {},
      async () => "in"
    )
  ).toBe("in")
  expect(existsSync(lock)).toBe(false)
})

it("says whom it waits for, and gives the lock back when the body fails", async () => {
  writeFileSync(lock, `${process.ppid}\n`)
  const owners = []
  const waiting = withLock(
    lock,
    (owner) => {
      owners.push(owner)
      rmSync(lock)
    },
    async () => {
      throw new Error("from the body")
    }
  )
  await expect(waiting).rejects.toThrow("from the body")
  expect(owners).toEqual([String(process.ppid)])
  expect(existsSync(lock)).toBe(false)
})
