/** Ends a process, or a worker of it, in the middle of blob I/O. Plain JavaScript: Node 20 runs no TypeScript. */
import * as Host from "@effect-spdk/native/Host"
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
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

const ask = async (name, target, args) => {
  const reply = await promise((answer) => host.blobstoreCall(name, target, args, answer))
  if (reply.status !== 0) throw new Error(`${name}: status ${reply.status}`)
  return reply
}

const start = async () => {
  const directory = mkdtempSync(join(tmpdir(), "espdk-blobstores-"))
  const { status, text } = await promise((answer) =>
    host.start(startOptions("blobstores", directory, `[${host.addon.cores().at(-1)}]`), answer)
  )
  if (status !== 0) throw new Error(`start: status ${status}`)
  return text
}

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

/** Writes a thin blob of a store of its own without end, and changes its metadata meanwhile. */
const writeOn = async (bdev, onFirst) => {
  const store = (await ask("init", 0, { numbers: [65_536, 64, 2], texts: [bdev, ""] })).a
  const { bytes } = await ask("create", store, { numbers: [32, 1, 0, 1], texts: [""] })
  const [id] = new Float64Array(new Uint8Array(bytes).buffer)
  const blob = (await promise((answer) => host.blobOpen(store, { numbers: [id, 0] }, () => {}, answer))).a
  const queue = await promise((answer) => host.spawn(bdev, "", (_reply, spawned) => answer(spawned)))
  const channel = await promise((answer) => host.channelOpen(queue, blob, answer))
  const slab = host.addon.dmaAllocateNow(4096, 4096)
  const completion = {
    complete: (index, status) => {
      if (status !== 0) throw new Error(`status ${status}`)
      onFirst?.()
      onFirst = undefined
      queue.ring.submit(entryAt(index), completion, (index + 8) % 4000)
    }
  }
  const entryAt = (offsetBlocks) => ({
    ...makeEntry(),
    opcode: Opcode.Write,
    channelSlot: channel.a,
    channelGeneration: channel.b,
    slabSlot: slab[0],
    slabGeneration: slab[1],
    lengthBytes: 4096,
    lengthBlocks: 8,
    offsetBlocks
  })
  for (let i = 0; i < 64; i++) queue.ring.submit(entryAt(i * 8), completion, i * 8)
  const change = () => {
    const value = new Uint8Array([1, 2, 3])
    host.blobstoreCall("blob.setXattr", blob, { values: [value, value] }, () => {})
    host.blobstoreCall("blob.sync", blob, {}, change)
  }
  change()
}

const ways = {
  exit: async () => {
    const socket = await start()
    await call(socket, "bdev_malloc_create", { name: "m", num_blocks: 16_384, block_size: 512 })
    await writeOn("m", () => setTimeout(() => process.exit(9), 30))
  },
  "exit while it is slow": async () => {
    const socket = await start()
    await call(socket, "bdev_malloc_create", { name: "m", num_blocks: 16_384, block_size: 512 })
    const slow = {
      avg_read_latency: 20_000,
      p99_read_latency: 20_000,
      avg_write_latency: 20_000,
      p99_write_latency: 20_000
    }
    await call(socket, "bdev_delay_create", { base_bdev_name: "m", name: "slow", ...slow })
    await writeOn("slow", () => setTimeout(() => process.exit(10), 50))
  },
  terminate: async () => {
    const socket = await start()
    for (let round = 0; round < 6; round++) {
      const names = [0, 1].map((index) => `m${round}_${index}`)
      for (const name of names) await call(socket, "bdev_malloc_create", { name, num_blocks: 16_384, block_size: 512 })
      const workers = names.map((name) => new Worker(fileURLToPath(import.meta.url), { workerData: { name } }))
      await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("message", resolve))))
      await Promise.all(workers.map((worker) => worker.terminate()))
      while (host.usage().blobstores > 0) await delay(1)
      // Unloaded, and not only forgotten: the bdevs go, and what was on them loads.
      const { a } = await ask("load", 0, { texts: [names[0] ?? "", ""] })
      await ask("unload", a, {})
      for (const name of names) await call(socket, "bdev_malloc_delete", { name })
    }
    const deadline = Date.now() + 10_000
    while (Object.values(host.usage()).some((count) => count > 0) && Date.now() < deadline) await delay(1)
    console.log("usage", JSON.stringify(host.usage()))
  }
}

if (isMainThread) await ways[process.argv[2]]()
else {
  await start()
  await writeOn(workerData.name, () => parentPort.postMessage("writing"))
}
