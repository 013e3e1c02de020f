/** Exits with I/O in flight at a device that never answers: `nvmeExit.mjs port`. */
import * as Host from "@effect-spdk/native/Host"
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startOptions } from "./startOptions.mjs"

const result = Host.get()
if (result._tag === "Missing") throw new Error(result.reason)
const { host } = result
const directory = mkdtempSync(join(tmpdir(), "espdk-exit-"))

const promise = (call) =>
  new Promise((resolve, reject) =>
    call((reply, more) =>
      reply.status === 0 ? resolve([reply, more]) : reject(new Error(`${reply.status} ${reply.text}`))
    )
  )

await promise((answer) => host.start(startOptions("exit", directory, `[${host.addon.cores().at(-1)}]`), answer))
const options = {
  trtype: "TCP",
  adrfam: "IPv4",
  traddr: "127.0.0.1",
  trsvcid: process.argv[2],
  subnqn: "nqn.2016-06.io.spdk:raw",
  priority: 0,
  hostnqn: "nqn.2014-08.org.nvmexpress:uuid:5e7f0a52-26a5-4f0e-8d6c-5b5e7c1d8a12",
  hostId: new Uint8Array(16).fill(9),
  sourceAddress: "",
  sourcePort: "",
  ioQueues: 4,
  ioQueueSize: 128,
  adminQueueSize: 32,
  keepAliveMillis: 10_000,
  connectTimeoutMillis: 10_000,
  adminTimeoutMillis: 10_000,
  ioTimeoutMillis: 0,
  headerDigest: false,
  dataDigest: false,
  retries: 4,
  psk: "",
  dhchapKey: "",
  dhchapControllerKey: ""
}
const [{ a: controller }] = await promise((answer) => host.nvme.connect(options, () => {}, answer))
const [, queue] = await promise((answer) => host.spawn("exit", "", answer))
// The second namespace answers after an hour.
const [{ a: target }] = await promise((answer) => host.nvme.open(controller, 2, () => {}, answer))
const [{ a: slot, b: generation }] = await promise((answer) => host.channelOpen(queue, target, answer))
const [slabSlot, slabGeneration] = host.addon.dmaAllocateNow(4096, 4096)
for (let i = 0; i < 64; i++) {
  const entry = { ...makeEntry(), opcode: Opcode.Read, channelSlot: slot, channelGeneration: generation }
  Object.assign(entry, { slabSlot, slabGeneration, lengthBytes: 512, offsetBlocks: i, lengthBlocks: 1 })
  queue.ring.submit(entry, { complete: () => console.log("an answer") }, i)
}
setTimeout(() => {
  console.log(`in flight ${queue.ring.inFlight}`)
  process.exit(7)
}, 200)
