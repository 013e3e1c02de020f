/** Exits with I/O in flight at a device that never answers: `nvmeExit.mjs port`. */
import * as Host from "@effect-spdk/native/Host"
import { performance } from "node:perf_hooks"
import { Opcode } from "@effect-spdk/native/Layout"
import { makeEntry } from "@effect-spdk/native/Queue"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

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

await promise((answer) =>
  host.start(
    {
      name: "exit",
      cores: `[${host.addon.cores().at(-1)}]`,
      rpcSocket: join(directory, "rpc.sock"),
      rpcDirectory: directory,
      rpcLink: "",
      logLevel: "error",
      pciAllowed: [],
      pciBlocked: [],
      memoryMiB: 512,
      hugepages: false,
      pci: false,
      adaptive: process.argv[3] !== "busy",
      waitForRpc: false,
      key: "exit"
    },
    answer
  )
)
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
const [{ a: target }] = await promise((answer) => host.nvme.open(controller, 1, () => {}, answer))
const [{ a: slot, b: generation }] = await promise((answer) => host.channelOpen(queue, target, answer))
const [slabSlot, slabGeneration] = host.addon.dmaAllocateNow(4096*256, 4096)
const entry = { ...makeEntry(), opcode: Opcode.Read, channelSlot: slot, channelGeneration: generation, slabSlot, slabGeneration, lengthBytes: 4096, lengthBlocks: 8 }
const run = (qd, millis) => new Promise((resolve) => {
  let done = 0; let left = qd; const until = performance.now() + millis; const start = performance.now(); const cpu = process.cpuUsage()
  const lat = []; 
  const one = (i) => { const t = performance.now(); entry.slabOffset = i*4096; entry.offsetBlocks = (done * 8 * 7919) % 65000 & ~7; queue.ring.submit(entry, { complete: (_, status) => { if (status !== 0) throw new Error(String(status)); lat.push(performance.now()-t); done++; if (performance.now() < until) one(i); else if (--left === 0) { lat.sort((a,b)=>a-b); const c = process.cpuUsage(cpu); const took = performance.now()-start; resolve({ qd, iops: Math.round(done*1000/took), p50: lat[lat.length>>1], p99: lat[Math.floor(lat.length*0.99)], cpu: (c.user+c.system)/1000/took }) } } }, i) }
  for (let i=0;i<qd;i++) one(i)
})
for (const qd of [1, 1, 4, 32]) console.log(process.argv[3], JSON.stringify(await run(qd, 2500)))
process.exit(0)
