/** What the programs of this folder start SPDK with: small, without hugepages and devices, files in `directory`. */
import { join } from "node:path"

export const startOptions = (name, directory, cores, changes = {}) => ({
  name,
  cores,
  rpcSocket: join(directory, "rpc.sock"),
  rpcDirectory: directory,
  rpcLink: "",
  logLevel: "error",
  pciAllowed: [],
  pciBlocked: [],
  memoryMiB: 512,
  hugepages: false,
  pci: false,
  adaptive: true,
  waitForRpc: false,
  key: name,
  ...changes
})
