/** Starts and ends SPDK in the way that the first argument names. Plain JavaScript: Node 20 runs no TypeScript. */
import * as Host from "@effect-spdk/native/Host"
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import { spawnSync } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads"
import { startOptions } from "./startOptions.mjs"

const result = Host.get()
if (result._tag === "Missing") throw new Error(result.reason)
const { host } = result

const promise = (call) => new Promise((resolve) => call(resolve))
const delay = (millis) => new Promise((resolve) => setTimeout(resolve, millis))

const optionsWith = (changes) => {
  const directory = mkdtempSync(join(tmpdir(), "espdk-lifetimes-"))
  return startOptions("lifetimes", directory, `[${host.addon.cores().at(-1)}]`, changes)
}

const start = (changes) => promise((answer) => host.start(optionsWith(changes), answer))

const answers = (socket) =>
  new Promise((resolve) => {
    const connection = connect(socket, () => resolve(true))
    connection.once("error", () => resolve(false))
    connection.unref()
  })

const call = (socket, method, params) =>
  new Promise((resolve, reject) => {
    const connection = connect(socket, () =>
      connection.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }))
    )
    connection.once("error", reject)
    connection.once("data", (text) => {
      connection.destroy()
      resolve(JSON.parse(String(text)))
    })
  })

const spawnWorker = (job, data = {}) => new Worker(fileURLToPath(import.meta.url), { workerData: { job, ...data } })
const said = (worker) => new Promise((resolve) => worker.once("message", resolve))

/** Reads that have completed, by the name of their queue. */
const completed = new Map()

/** Reads without end, so many at once. */
const readOn = async (socket, name, depth, onFirst) => {
  await call(socket, "bdev_malloc_create", { name, num_blocks: 256, block_size: 512 })
  const queue = await promise((answer) => host.spawn(name, "", (_reply, spawned) => answer(spawned)))
  const descriptor = await promise((answer) => host.bdevOpen(name, true, () => {}, answer))
  const channel = await promise((answer) => host.channelOpen(queue, descriptor.a, answer))
  const slab = host.addon.dmaAllocateNow(4096, 4096)
  const entry = {
    ...makeEntry(),
    opcode: Opcode.Read,
    channelSlot: channel.a,
    channelGeneration: channel.b,
    slabSlot: slab[0],
    slabGeneration: slab[1],
    lengthBytes: 512,
    lengthBlocks: 1
  }
  const completion = {
    complete: (_index, status) => {
      if (status !== 0) throw new Error(`status ${status}`)
      onFirst?.()
      onFirst = undefined
      completed.set(name, (completed.get(name) ?? 0) + 1)
      queue.ring.submit(entry, completion, 0)
    }
  }
  for (let i = 0; i < depth; i++) queue.ring.submit(entry, completion, i)
}

/** Waits again and again, so that all of its work is done where a reactor has woken it. */
const wakeOn = async (name, onWake) => {
  const queue = await promise((answer) => host.spawn(name, "", (_reply, spawned) => answer(spawned)))
  const entry = { ...makeEntry(), opcode: Opcode.Timer, offsetBlocks: 200 }
  let wakes = 0
  const completion = {
    complete: () => {
      onWake(++wakes)
      queue.ring.submit(entry, completion, 0)
    }
  }
  for (let i = 0; i < 4; i++) queue.ring.submit(entry, completion, i)
}

const jobs = {
  wake: async () => {
    await start()
    await wakeOn(workerData.name, (wakes) => {
      if (wakes === 40) parentPort.postMessage("awake")
      if (wakes === 80 && workerData.end === "exit") process.exit(0)
      if (wakes === 80 && workerData.end === "throw") throw new Error("of the test")
    })
  },
  read: async () => {
    const { text } = await start()
    await readOn(text, workerData.name, 32, () => parentPort.postMessage("reading"))
  },
  ask: async () => {
    const options = optionsWith({ waitForRpc: true })
    host.start(options, () => {})
    while (!(await answers(options.rpcSocket))) await delay(5)
    parentPort.postMessage("asked")
  }
}

const ways = {
  pci: async () => {
    console.log("status", (await start({ pci: true, pciAllowed: ["0000:5e:00.0", "0000:5e:00.1"] })).status)
    process.exit(3)
  },
  terminate: async () => {
    await start()
    for (let round = 0; round < 8; round++) {
      const workers = [0, 1].map((index) => spawnWorker("read", { name: `m${round}_${index}` }))
      await Promise.all(workers.map(said))
      await Promise.all(workers.map((worker) => worker.terminate()))
    }
    // What the workers had is closed by SPDK's threads, each thing when what is in its way has gone.
    const deadline = Date.now() + 10_000
    while (Object.values(host.usage()).some((count) => count > 0) && Date.now() < deadline) await delay(5)
    console.log("usage", JSON.stringify(host.usage()))
  },
  "end in a wake": async () => {
    await start()
    const ends = { terminate: 0, exit: 0, throw: 0 }
    for (let round = 0; round < 6; round++) {
      const workers = Object.keys(ends).map((end) => {
        const worker = spawnWorker("wake", { name: `w${round}_${end}`, end })
        const ended = new Promise((resolve) => worker.once("exit", resolve))
        if (end === "throw") worker.once("error", ({ message }) => (ends.throw += message === "of the test" ? 1 : 0))
        if (end === "terminate") void said(worker).then(() => worker.terminate())
        return ended.then((code) => (ends[end] += end !== "throw" && code === (end === "exit" ? 0 : 1) ? 1 : 0))
      })
      await Promise.all(workers)
    }
    const deadline = Date.now() + 10_000
    while (Object.values(host.usage()).some((count) => count > 0) && Date.now() < deadline) await delay(5)
    console.log("ends", JSON.stringify(ends), "threads", host.usage().threads)
  },
  "terminate starter": async () => {
    const worker = spawnWorker("ask")
    await said(worker)
    await worker.terminate()
    console.log("status", (await start()).status)
  },
  "release before the answer": async () => {
    const asked = host.start(optionsWith({ waitForRpc: true }), () => {})
    host.release(asked)
    console.log("status", (await start()).status)
  },
  "exit while it waits": async () => {
    const options = optionsWith({ waitForRpc: true })
    host.start(options, () => {})
    while (!(await answers(options.rpcSocket))) await delay(5)
    console.log("directory", options.rpcDirectory)
    process.exit(5)
  },
  "exit while it starts": async () => {
    host.start(optionsWith({}), () => {})
    process.exit(6)
  },
  "exit while it reads": async () => {
    const { text } = await start()
    await readOn(text, "m", 64, () => process.exit(7))
  },
  "share a processor": async () => {
    const { text } = await start()
    const placed = spawnSync("taskset", ["-c", "-p", String(host.addon.cores().at(-1)), String(process.pid)])
    if (placed.status !== 0) throw new Error(`taskset: ${placed.error ?? placed.stderr}`)
    let handovers = 0
    const { giveWay } = host.addon
    host.addon.giveWay = () => {
      handovers++
      return giveWay()
    }
    await readOn(text, "m", 32)
    let ticks = 0
    // Each of them waits for whoever else has work on this processor, so that there are not more of them than it takes.
    // Both the timers of this thread and the socket of SPDK's RPC, which runs on the reactor, get their turn all the while.
    while (handovers < 500 || ticks < 50) {
      await delay(1)
      if (++ticks % 25 === 0) await call(text, "spdk_get_version")
      if (ticks > 20_000) break
    }
    console.log("in flight", host.requestsInFlight, "handed over", handovers >= 500)
    process.exit(0)
  },
  "is moved between processors": async () => {
    const cores = host.addon.cores()
    const directory = mkdtempSync(join(tmpdir(), "espdk-lifetimes-"))
    const options = startOptions("lifetimes", directory, `[${cores.join(",")}]`)
    const { text } = await promise((answer) => host.start(options, answer))
    const names = ["m0", "m1"]
    for (const name of names) await readOn(text, name, 32)
    // This thread alone, and then the reactors with it.
    const places = ["-cp", "-acp"].flatMap((flags) => cores.map((core) => ({ flags, core })))
    let moves = 0
    for (const { core, flags } of [...places, ...places]) {
      const moved = spawnSync("taskset", [flags, String(core), String(process.pid)])
      if (moved.status !== 0) throw new Error(`taskset: ${moved.error ?? moved.stderr}`)
      const before = names.map((name) => completed.get(name))
      // Every queue goes on, and the timers of this thread and the socket of a reactor with them.
      for (let ticks = 0; ticks < 10 || names.some((name, index) => completed.get(name) <= before[index]); ticks++) {
        if (ticks > 5000) throw new Error(`nothing comes on processor ${core}`)
        await delay(1)
      }
      await call(text, "spdk_get_version")
      moves++
    }
    console.log("in flight", host.requestsInFlight, "all moves", moves === 4 * cores.length)
    process.exit(0)
  },
  "too little memory": async () => {
    const first = await start({ memoryMiB: 64 })
    const second = await start({ memoryMiB: 64 })
    console.log("status", first.status < 0 && second.status < 0, JSON.stringify(second.text))
  }
}

await (isMainThread ? ways[process.argv[2]]() : jobs[workerData.job]())
