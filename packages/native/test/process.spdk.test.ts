/** How SPDK and the threads that use it begin and end, each way in a process of its own. */
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { describeWithSpdk } from "./support/rawSpdk.ts"

interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
}

const childPath = (name: string): string => fileURLToPath(new URL(`./children/${name}.mjs`, import.meta.url))

const run = (way: string): Promise<Ended> => spawned(process.execPath, [childPath("lifetimes"), way])

const spawned = (file: string, args: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve) => {
    const child = spawn(file, args, { timeout: 45_000, killSignal: "SIGKILL" })
    const said = { stdout: "", stderr: "" }
    child.stdout.on("data", (text) => (said.stdout += String(text)))
    child.stderr.on("data", (text) => (said.stderr += String(text)))
    child.once("close", (code, signal) => resolve({ code, signal, ...said }))
  })

/** Fails with everything that the program said. */
const expectEnd = (ended: Ended, code: number, stdout: RegExp): void =>
  expect(ended).toEqual({ code, signal: null, stdout: expect.stringMatching(stdout), stderr: expect.anything() })

describeWithSpdk("the lifetime of SPDK in a process", () => {
  it("a list of PCI addresses is given away once", async () => {
    expectEnd(await run("pci"), 3, /status 0/)
  })

  it("workers that are terminated in the middle of their I/O take nothing with them and leave nothing behind", async () => {
    const held = {
      threads: 0,
      descriptors: 0,
      channels: 0,
      pollers: 0,
      blobstores: 0,
      blobs: 0,
      nvmeControllers: 0,
      slabs: 0,
      dmaBytes: 0
    }
    expectEnd(await run("terminate"), 0, new RegExp(`usage ${JSON.stringify(held)}`))
  })

  it("workers end where a reactor has woken them: terminated, by exit, and by an exception", async () => {
    expectEnd(await run("end in a wake"), 0, /ends \{"terminate":6,"exit":6,"throw":6\} threads 0/)
  })

  it("SPDK starts when the worker that was to configure it is gone", async () => {
    expectEnd(await run("terminate starter"), 0, /status 0/)
  })

  it("SPDK starts when the share that was to configure it is released before the answer", async () => {
    expectEnd(await run("release before the answer"), 0, /status 0/)
  })

  it("an exit while SPDK waits for its configuration leaves no directory", async () => {
    const ended = await run("exit while it waits")
    expectEnd(ended, 5, /directory \S+/)
    expect(existsSync(/directory (\S+)/.exec(ended.stdout)?.[1] ?? "/")).toBe(false)
  })

  it("an exit while SPDK starts", async () => {
    expectEnd(await run("exit while it starts"), 6, /^$/)
  })

  it("an exit in a completion", async () => {
    expectEnd(await run("exit while it reads"), 7, /^$/)
  })

  it("JavaScript and its reactor share a processor, and timers and sockets get their turn", async () => {
    expectEnd(await run("share a processor"), 0, /in flight 32 handed over true/)
  })

  it("queues of several reactors go on wherever JavaScript and the reactors are moved to", async () => {
    expectEnd(await run("is moved between processors"), 0, /in flight 64 all moves true/)
  })

  it("a thread that cannot be woken is told why, and may try again", async () => {
    const ended = await spawned("sh", ["-c", 'ulimit -n 64; exec "$0" "$1"', process.execPath, childPath("noEvent")])
    const said = [
      "no event to wake this thread by: eventfd gives none",
      "attach() first",
      "attached",
      "attach takes one function, once"
    ]
    expect({ ...ended, stdout: JSON.parse(ended.stdout) }).toEqual({ code: 0, signal: null, stdout: said, stderr: "" })
  })

  it("memory whose view was transferred is neither freed nor given to another", async () => {
    // Of the language since Node 22.
    const flags = "transfer" in ArrayBuffer.prototype ? [] : ["--harmony-rab-gsab-transfer"]
    const ended = await spawned(process.execPath, [...flags, childPath("transferredView")])
    const refused = "the view of DMA memory was transferred: the memory is kept"
    expect(ended).toMatchObject({ code: 0, signal: null })
    expect(JSON.parse(ended.stdout)).toEqual({
      renewed: refused,
      freed: refused,
      reached: 0,
      slabs: 3,
      freedTwice: "done"
    })
  })

  it("a start that fails says why, also to those who come later", async () => {
    expectEnd(await run("too little memory"), 0, /status true "\S.*"/)
  })
})
