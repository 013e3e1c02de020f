/** The NVMe/TCP codec, against PDUs of SPDK and against changed ones. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { crc32c, getU16, getU32 } from "../src/internal/nvme/wire/bytes.ts"
import { decodeConnect, decodeConnectData } from "../src/internal/nvme/wire/fabrics.ts"
import {
  decodeIcReq,
  decodeIcResp,
  encodeIcReq,
  encodeIcResp,
  FatalError,
  PduFault,
  PduFormat,
  plainFormat,
  PduType,
  writeCapsuleCmd,
  writeCapsuleResp,
  writeDataHeader
} from "../src/internal/nvme/wire/pdu.ts"
import { PduReader } from "../src/internal/nvme/wire/pduReader.ts"
import { makeRandom } from "./support/random.ts"

const golden: Record<string, string> = JSON.parse(
  readFileSync(new URL("golden/nvmePdus.json", import.meta.url), "utf8")
)
const bytesOf = (name: string): Uint8Array => new Uint8Array(Buffer.from(golden[name] ?? "", "hex"))
const digests = new PduFormat({ headerDigest: true, dataDigest: true, alignment: 0 })

interface Read {
  readonly fault: PduFault | undefined
  readonly data: Uint8Array
  readonly ends: ReadonlyArray<boolean>
}

/** Reads `first` and then `pdu`, in chunks of the given size. */
const read = (receiver: "controller" | "host", format: PduFormat, pdu: Uint8Array, chunkBytes: number): Read => {
  const pieces: Array<Uint8Array> = []
  const ends: Array<boolean> = []
  const reader: PduReader = new PduReader(receiver, {
    onHeader: (self) => {
      if (self.type === PduType.IcReq || self.type === PduType.IcResp) self.agree(format)
      return undefined
    },
    onData: (bytes, start, end) => {
      pieces.push(bytes.slice(start, end))
      return undefined
    },
    onEnd: (isDigestRight) => {
      ends.push(isDigestRight)
      return undefined
    }
  })
  reader.push(bytesOf(receiver === "controller" ? "icReq" : "icResp"))
  let fault: PduFault | undefined
  for (let at = 0; at < pdu.length; at += chunkBytes) fault ??= reader.push(pdu.slice(at, at + chunkBytes))
  return { fault, data: new Uint8Array(Buffer.concat(pieces)), ends }
}

describe("PDUs of SPDK", () => {
  it("encode to the same bytes", () => {
    assert.deepStrictEqual(encodeIcReq(decodeIcReq(bytesOf("icReq"), 0)), bytesOf("icReq"))
    assert.deepStrictEqual(encodeIcResp(decodeIcResp(bytesOf("icResp"), 0)), bytesOf("icResp"))
    const connect = bytesOf("connectDigests")
    const copy = new Uint8Array(connect.length)
    copy.set(connect.subarray(8, 72), 8)
    const at = writeCapsuleCmd(copy, 0, digests, 1024)
    copy.set(connect.subarray(at, at + 1024), at)
    const crc = crc32c(copy, at, at + 1024)
    assert.strictEqual(crc, getU32(connect, at + 1024))
    assert.deepStrictEqual(copy.subarray(0, at + 1024), connect.subarray(0, at + 1024))
    const response = bytesOf("connectResponseHeaderDigest")
    const answered = new Uint8Array(response.length)
    answered.set(response.subarray(8, 24), 8)
    const headerOnly = new PduFormat({ headerDigest: true, dataDigest: false, alignment: 0 })
    assert.strictEqual(writeCapsuleResp(answered, 0, headerOnly), response.length)
    assert.deepStrictEqual(answered, response)
    const data = bytesOf("c2hDataDigests")
    const header = new Uint8Array(28)
    const transfer = { commandId: getU16(data, 8), transferTag: 0, offsetBytes: 0, lengthBytes: 512 }
    writeDataHeader(header, 0, digests, { type: PduType.C2hData, flags: 12, transfer })
    assert.deepStrictEqual(header, data.slice(0, 28))
  })

  it("say what they mean", () => {
    const connect = bytesOf("connectPlain")
    assert.strictEqual(decodeConnect(connect, 8).queueId, 0)
    const data = decodeConnectData(connect.subarray(72))
    assert.isObject(data)
    if (typeof data !== "number") assert.strictEqual(data.subsystemNqn, "nqn.2024-01.io.x:s1")
  })

  it("are read whatever the chunks are", () => {
    for (let chunkBytes = 1; chunkBytes < 1200; chunkBytes += chunkBytes < 80 ? 1 : 97) {
      const capsule = read("controller", digests, bytesOf("connectDigests"), chunkBytes)
      assert.isUndefined(capsule.fault)
      assert.deepStrictEqual(capsule.data, bytesOf("connectDigests").slice(76, 1100))
      const data = read("host", digests, bytesOf("c2hDataDigests"), chunkBytes)
      assert.isUndefined(data.fault)
      assert.deepStrictEqual(data.ends, [true, true])
      assert.strictEqual(data.data.length, 512)
    }
  })
})

describe("bad PDUs", () => {
  const changed = (name: string, at: number, value: number): Uint8Array => {
    const bytes = bytesOf(name)
    bytes[at] = value
    return bytes
  }
  const faults: ReadonlyArray<readonly [string, Uint8Array, PduFormat, number, number]> = [
    ["type", changed("connectPlain", 0, 8), plainFormat, FatalError.InvalidHeaderField, 0],
    ["type of the other side", changed("connectPlain", 0, 7), plainFormat, FatalError.InvalidHeaderField, 0],
    ["header length", changed("connectPlain", 2, 71), plainFormat, FatalError.InvalidHeaderField, 2],
    ["data offset", changed("connectPlain", 3, 70), plainFormat, FatalError.InvalidHeaderField, 3],
    ["length", changed("connectDigests", 5, 0), digests, FatalError.InvalidHeaderField, 4],
    ["digest flag", bytesOf("connectPlain"), digests, FatalError.InvalidHeaderField, 1],
    ["header digest", changed("connectDigests", 73, 0), digests, FatalError.HeaderDigestError, -1],
    ["second ICReq", bytesOf("icReq"), plainFormat, FatalError.SequenceError, 0]
  ]
  for (const [name, pdu, format, fatalError, field] of faults) {
    it(`${name} is a fault`, () => {
      for (const chunkBytes of [1, 7, 4096]) {
        const { fault } = read("controller", format, pdu, chunkBytes)
        assert.instanceOf(fault, PduFault)
        assert.strictEqual(fault?.fatalError, fatalError)
        if (field >= 0) assert.strictEqual(fault?.field, field)
      }
    })
  }

  it("a wrong data digest is told to the owner, and is no fault", () => {
    const { ends, fault } = read("controller", digests, changed("connectDigests", 80, 0xaa), 4096)
    assert.isUndefined(fault)
    assert.deepStrictEqual(ends, [true, false])
  })

  it("changed at random: a fault or data within the length, and never an exception", () => {
    const seed = Number(process.env["EFFECT_SPDK_SEED"] ?? Date.now() % 2 ** 31)
    const random = makeRandom(seed)
    const rounds = process.env["EFFECT_SPDK_LONG"] === "1" ? 2_000_000 : 20_000
    for (let round = 0; round < rounds; round++) {
      const isDigested = random.chance(0.5)
      const pdu = bytesOf(isDigested ? "connectDigests" : "connectPlain")
      for (let n = random.below(4); n >= 0; n--)
        pdu[random.below(random.chance(0.7) ? 24 : pdu.length)] = random.below(256)
      const { data } = read("controller", isDigested ? digests : plainFormat, pdu, 1 + random.below(pdu.length))
      assert.isAtMost(data.length, pdu.length, `seed ${seed} round ${round}`)
    }
  })
})
