import { assert, describe, it } from "@effect/vitest"
import { adminDataBytes, ioDataBytes } from "../src/internal/nvme/dataLength.ts"

describe("bytes that a command says it moves", () => {
  it.each([
    ["identify", { opcode: 0x06 }, 4096],
    ["get log page, both halves of the number", { opcode: 0x02, cdw10: 0xffff_0002, cdw11: 0x0001_0001 }, 4 * 0x2_0000],
    ["create namespace", { opcode: 0x0d, cdw10: 0 }, 4096],
    ["delete namespace", { opcode: 0x0d, cdw10: 1 }, 0],
    ["attach namespace", { opcode: 0x15 }, 4096],
    ["firmware image download", { opcode: 0x11, cdw10: 1023 }, 4096],
    ["firmware image download, all bits", { opcode: 0x11, cdw10: 0xffff_ffff }, 2 ** 34],
    ["directive receive", { opcode: 0x1a, cdw10: 7, cdw11: 0x0001 }, 32],
    ["directive receive, streams resources", { opcode: 0x1a, cdw10: 7, cdw11: 0x0103 }, 0],
    ["directive send, enable", { opcode: 0x19, cdw10: 7, cdw11: 0x0001 }, 0],
    ["directive send, another", { opcode: 0x19, cdw10: 7, cdw11: 0x0501 }, 32],
    ["security send", { opcode: 0x81, cdw11: 2048 }, 2048],
    ["security receive", { opcode: 0x82, cdw11: 0xffff_ffff }, 0xffff_ffff],
    ["get LBA status", { opcode: 0x86, cdw12: 3 }, 16],
    ["get features, timestamp", { opcode: 0x0a, cdw10: 0x0e }, 8],
    ["get features, timestamp, what is supported", { opcode: 0x0a, cdw10: 0x030e }, 0],
    ["get features, host identifier", { opcode: 0x0a, cdw10: 0x81 }, 8],
    ["set features, long host identifier", { opcode: 0x09, cdw10: 0x81, cdw11: 1 }, 16],
    ["set features, LBA ranges", { opcode: 0x09, cdw10: 0x03 }, 4096],
    ["set features, power states", { opcode: 0x09, cdw10: 0x0c }, 256],
    ["set features, host behavior", { opcode: 0x09, cdw10: 0x8000_0016 }, 512],
    ["get features, host memory buffer", { opcode: 0x0a, cdw10: 0x0d }, 4096],
    ["get features, one dword", { opcode: 0x0a, cdw10: 0x04 }, 0],
    ["connect", { opcode: 0x7f, nsid: 0x01 }, 1024],
    ["authentication receive", { opcode: 0x7f, nsid: 0x06, cdw11: 512 }, 512],
    ["property get", { opcode: 0x7f, nsid: 0x04 }, 0],
    ["vendor's", { opcode: 0xc1, cdw10: 7 }, 0]
  ] as const)("admin: %s", (_, command, bytes) => {
    assert.strictEqual(adminDataBytes(command), bytes)
  })

  it.each([
    ["read", { opcode: 0x02, cdw12: 7 }, 8 * 520],
    ["write, protection made by the controller", { opcode: 0x01, cdw12: 0x2000_0007 }, 8 * 512],
    ["compare", { opcode: 0x05, cdw12: 0 }, 520],
    ["zone append", { opcode: 0x7d, cdw12: 0xffff }, 65_536 * 520],
    ["dataset management", { opcode: 0x09, cdw10: 255 }, 4096],
    ["copy, format 0", { opcode: 0x19, cdw12: 1 }, 64],
    ["copy, format 1", { opcode: 0x19, cdw12: 0x101 }, 80],
    ["reservation register", { opcode: 0x0d }, 16],
    ["reservation acquire", { opcode: 0x11, cdw10: 2 }, 16],
    ["reservation release", { opcode: 0x15 }, 8],
    ["reservation report", { opcode: 0x0e, cdw10: 1023 }, 4096],
    ["I/O management receive", { opcode: 0x12, cdw10: 1, cdw11: 15 }, 64],
    ["I/O management send", { opcode: 0x1d, cdw10: 0x0003_0001 }, 8],
    ["zone management receive", { opcode: 0x7a, cdw12: 0xffff_ffff }, 2 ** 34],
    ["zone management send", { opcode: 0x79, cdw13: 1 }, 0],
    ["zone management send, descriptor extension", { opcode: 0x79, cdw13: 0x10 }, 64],
    ["flush", { opcode: 0x00 }, 0]
  ] as const)("namespace: %s", (_, command, bytes) => {
    assert.strictEqual(ioDataBytes(command, { blockSize: 512, extendedBlockSize: 520 }), bytes)
  })
})
