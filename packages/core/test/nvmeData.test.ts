import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { readFileSync } from "node:fs"
import { decodeAsyncEvent, encodeAsyncEvent } from "../src/internal/nvme/wire/asyncEvent.ts"
import { subsystemOf } from "../src/internal/nvme/discovered.ts"
import { decodeTimestamp, encodeTimestamp, featureWords } from "../src/internal/nvme/wire/features.ts"
import * as identify from "../src/internal/nvme/wire/identify.ts"
import * as log from "../src/internal/nvme/wire/logPages.ts"
import { fromHex, type Malformed, struct, toHex, u16, utf8, ascii } from "../src/internal/nvme/wire/struct.ts"
import { makeRandom, withSeed } from "./support/random.ts"

interface Golden {
  readonly lengthBytes: number
  readonly hex: string
}

// Where the bytes come from stands in the file.
const golden: Readonly<Record<string, Golden>> = JSON.parse(
  readFileSync(new URL("golden/nvmeData.json", import.meta.url), "utf8")
)

const bytesOf = (name: string): Uint8Array => {
  const { hex, lengthBytes } = golden[name] ?? assert.fail(`no golden bytes of ${name}`)
  const bytes = new Uint8Array(lengthBytes)
  bytes.set(fromHex(hex))
  return bytes
}

const good = <A>(result: Result.Result<A, Malformed>): A =>
  Result.match(result, { onSuccess: (value) => value, onFailure: ({ rule, where }) => assert.fail(`${where} ${rule}`) })

const ruleOf = <A>(result: Result.Result<A, Malformed>): string =>
  Result.match(result, { onSuccess: () => assert.fail("expected a refusal"), onFailure: ({ rule }) => rule })

const sameHex = (actual: Uint8Array, expected: Uint8Array): void => {
  assert.strictEqual(actual.length, expected.length)
  const at = expected.findIndex((byte, i) => actual[i] !== byte)
  const around = (bytes: Uint8Array) => toHex(bytes.subarray(Math.max(0, at), at + 16))
  assert.strictEqual(at, -1, `at byte ${at} ${around(actual)} instead of ${around(expected)}`)
}

describe("identify data", () => {
  it("of a controller says what spdk_nvme_identify says", () => {
    const controller = good(identify.identifyController.decode(bytesOf("identifyController")))
    assert.strictEqual(controller.pciVendorId, 0x8086)
    assert.strictEqual(controller.serialNumber, "SPDK00000000000001")
    assert.strictEqual(controller.modelNumber, "Golden controller")
    assert.strictEqual(controller.firmwareRevision, "26.05")
    assert.strictEqual(controller.recommendedArbitrationBurst, 6)
    assert.deepStrictEqual([...controller.ieeeOui], [0xe4, 0xd2, 0x5c])
    assert.deepStrictEqual(controller.multiPath, {
      multiplePorts: true,
      multipleControllers: true,
      sriov: false,
      anaReporting: true
    })
    assert.strictEqual(controller.maxDataTransfer, 5)
    assert.strictEqual(controller.version, 0x20000)
    assert.isTrue(controller.asyncEvents.namespaceAttribute && controller.asyncEvents.anaChange)
    assert.isFalse(controller.asyncEvents.discoveryLogChange)
    assert.isTrue(controller.attributes.hostId128)
    assert.strictEqual(controller.controllerType, 1)
    assert.strictEqual(controller.abortLimit + 1, 4)
    assert.strictEqual(controller.asyncEventLimit + 1, 4)
    assert.strictEqual(controller.errorLogEntries + 1, 128)
    assert.strictEqual(controller.keepAliveGranularity, 100)
    assert.strictEqual(controller.anaTransitionSeconds, 10)
    assert.deepStrictEqual(
      Object.entries(controller.anaCapabilities).flatMap(([name, on]) => (on ? [name] : [])),
      ["optimized", "nonOptimized", "inaccessible", "groupIdStable"]
    )
    assert.strictEqual(controller.maxAnaGroupId, 32)
    assert.strictEqual(controller.anaGroups, 32)
    assert.strictEqual(controller.maxNamespaceId, 32)
    assert.strictEqual(controller.maxAllowedNamespaces, 32)
    assert.deepStrictEqual(controller.submissionEntry, { required: 6, maximum: 6 })
    assert.deepStrictEqual(controller.completionEntry, { required: 4, maximum: 4 })
    assert.deepStrictEqual(
      Object.entries(controller.nvmCommands).flatMap(([name, on]) => (on ? [name] : [])),
      ["compare", "datasetManagement", "writeZeroes", "reservations", "copy"]
    )
    assert.isTrue(controller.fusedCompareAndWrite.supported)
    assert.strictEqual(controller.volatileWriteCache.present, 1)
    assert.strictEqual(controller.sgls.keyed, 1)
    assert.strictEqual(controller.sgls.offset, 1)
    assert.strictEqual(controller.subnqn, "nqn.2016-06.io.spdk:golden")
    assert.isTrue(controller.logPages.commandEffects && controller.logPages.extendedData)
    assert.isFalse(controller.logPages.telemetry)
  })

  it("of a discovery controller says that it sends notices of its log", () => {
    const controller = good(identify.identifyController.decode(bytesOf("discoveryController")))
    assert.strictEqual(controller.subnqn, "nqn.2014-08.org.nvmexpress.discovery")
    assert.strictEqual(controller.controllerType, 2)
    assert.isTrue(controller.asyncEvents.discoveryLogChange)
    assert.isFalse(controller.attributes.hostId128)
    assert.strictEqual(controller.abortLimit, 0)
  })

  it("of namespaces says what spdk_nvme_identify says", () => {
    const one = good(identify.identifyNamespace.decode(bytesOf("identifyNamespace1")))
    assert.strictEqual(one.numBlocks, 65_536n)
    assert.strictEqual(one.capacityBlocks, 65_536n)
    assert.strictEqual(one.nguid, "0123456789ABCDEF0123456789ABCDEF")
    assert.strictEqual(one.eui64, "0123456789ABCDEF")
    assert.strictEqual(one.anaGroupId, 1)
    assert.isTrue(one.sharing.shared)
    assert.strictEqual(one.maxCopySourceBlocks, 65_535)
    assert.strictEqual(one.maxCopyBlocks, 65_535)
    assert.strictEqual(one.maxCopySources + 1, 1)
    assert.deepStrictEqual(good(identify.namespaceFormat(one)), {
      blockSizeBytes: 512,
      metadataBytes: 0,
      extendedMetadata: false,
      numBlocks: 65_536
    })
    const five = good(identify.identifyNamespace.decode(bytesOf("identifyNamespace5")))
    assert.strictEqual(good(identify.namespaceFormat(five)).blockSizeBytes, 4096)
    assert.strictEqual(five.numBlocks, 4096n)
    assert.strictEqual(five.eui64, undefined)
    assert.strictEqual(five.anaGroupId, 5)
  })

  it("encodes to the very bytes that SPDK sent", () => {
    const io = bytesOf("identifyController")
    sameHex(identify.identifyController.encode(good(identify.identifyController.decode(io))), io)
    // SPDK's discovery controller has zeroes and not spaces where it has no serial and no model number.
    const discovery = bytesOf("discoveryController")
    const decoded = good(identify.identifyController.decode(discovery))
    assert.deepStrictEqual([decoded.serialNumber, decoded.modelNumber], ["", ""])
    const nameless = { ...decoded, serialNumber: undefined, modelNumber: undefined }
    sameHex(identify.identifyController.encode(nameless), discovery)
    for (const name of ["identifyNamespace1", "identifyNamespace5"]) {
      const bytes = bytesOf(name)
      sameHex(identify.identifyNamespace.encode(good(identify.identifyNamespace.decode(bytes))), bytes)
    }
    const list = bytesOf("activeNamespaces")
    const ids = good(identify.decodeNamespaceList(list))
    assert.deepStrictEqual(ids, [1, 5])
    sameHex(identify.encodeNamespaceList(ids), list)
  })

  it("of descriptors says what spdk_nvme_identify says, and encodes to the same bytes", () => {
    const bytes = bytesOf("descriptors1")
    const one = good(identify.decodeDescriptors(bytes))
    assert.deepStrictEqual(one, {
      eui64: "0123456789ABCDEF",
      nguid: "0123456789ABCDEF0123456789ABCDEF",
      uuid: "01234567-89ab-cdef-0123-456789abcdef"
    })
    sameHex(identify.encodeDescriptors(one), bytes)
    const zoned = { ...one, commandSet: 2 }
    assert.deepStrictEqual(good(identify.decodeDescriptors(identify.encodeDescriptors(zoned))), zoned)
    const five = good(identify.decodeDescriptors(bytesOf("descriptors5")))
    assert.strictEqual(five.uuid?.replaceAll("-", "").toUpperCase(), five.nguid)
    assert.isFalse("eui64" in five)
  })

  it("that lies is refused with the rule", () => {
    assert.match(ruleOf(identify.identifyController.decode(new Uint8Array(4095))), /4095 bytes instead of 4096/)
    assert.match(ruleOf(identify.identifyNamespace.decode(new Uint8Array(0))), /0 bytes instead of 4096/)
    assert.match(ruleOf(identify.decodeNamespaceList(new Uint8Array(8))), /8 bytes instead of 4096/)
    for (const ids of [
      [2, 1],
      [1, 1],
      [7, 8, 8]
    ]) {
      assert.match(ruleOf(identify.decodeNamespaceList(identify.encodeNamespaceList(ids))), /rising order/)
    }
    const past = new Uint8Array(24)
    past.set([3, 16], 8)
    past.set([1, 4])
    assert.match(ruleOf(identify.decodeDescriptors(past)), /4 bytes for eui64 instead of 8/)
    past.set([9, 4])
    assert.match(ruleOf(identify.decodeDescriptors(past)), /past their end at byte 8/)
  })

  it("of a namespace that cannot be a disk is refused", () => {
    const make = (input: Parameters<typeof identify.identifyNamespace.encode>[0]) =>
      identify.namespaceFormat(good(identify.identifyNamespace.decode(identify.identifyNamespace.encode(input))))
    const format = (blockSizeExponent: number) => [{ blockSizeExponent }]
    assert.match(ruleOf(make({ numBlocks: 1n, lbaFormatDescriptors: format(8) })), /2\^8 bytes/)
    assert.match(ruleOf(make({ numBlocks: 1n, lbaFormatDescriptors: format(0) })), /2\^0 bytes/)
    assert.match(ruleOf(make({ numBlocks: 1n, lbaFormatDescriptors: format(255) })), /2\^255 bytes/)
    assert.match(ruleOf(make({ formatted: { formatLow: 3 }, lbaFormatDescriptors: format(9) })), /names LBA format 3/)
    assert.match(ruleOf(make({ numBlocks: 2n ** 44n, lbaFormatDescriptors: format(9) })), /more than 2\^53 bytes/)
    assert.strictEqual(
      good(make({ numBlocks: 2n ** 44n - 1n, lbaFormatDescriptors: format(9) })).numBlocks,
      2 ** 44 - 1
    )
    const far = Array.from({ length: 18 }, (_, i) => ({ blockSizeExponent: i === 17 ? 12 : 9 }))
    const high = make({ lbaFormats: 17, formatted: { formatLow: 1, formatHigh: 1 }, lbaFormatDescriptors: far })
    assert.strictEqual(good(high).blockSizeBytes, 4096)
  })
})

describe("log pages", () => {
  it("of ANA say what spdk_nvme_identify says, and encode to the same bytes", () => {
    const bytes = bytesOf("ana")
    const ana = good(log.decodeAnaLog(bytes))
    assert.deepStrictEqual(ana, {
      changeCount: 0n,
      groups: [1, 5].map((id) => ({ groupId: id, state: "optimized" as const, changeCount: 0n, namespaceIds: [id] }))
    })
    const encoded = log.encodeAnaLog(ana)
    sameHex(encoded, bytes.subarray(0, encoded.length))
  })

  it("of health, firmware and errors decode", () => {
    const health = good(log.healthLog.decode(bytesOf("health")))
    assert.strictEqual(health.temperatureKelvin, 0)
    assert.isTrue(Object.values(health.criticalWarning).every((warning) => !warning))
    const firmware = good(log.firmwareLog.decode(bytesOf("firmware")))
    assert.deepStrictEqual(firmware.slots, { active: 1, nextReset: 0 })
    assert.deepStrictEqual(firmware.revisions, ["26.05", "", "", "", "", "", ""])
    assert.deepStrictEqual(good(log.decodeErrorLog(bytesOf("errors"))), [])
    const entry = { errorCount: 7n, submissionQueueId: 1, commandId: 9, status: { sct: 2, sc: 0x81, dnr: 1 }, nsid: 3 }
    const [decoded] = good(log.decodeErrorLog(log.encodeErrorEntry(entry)))
    assert.strictEqual(decoded?.errorCount, 7n)
    assert.deepStrictEqual(decoded?.status, { phase: 0, sc: 0x81, sct: 2, retryDelay: 0, more: 0, dnr: 1 })
  })

  it("of health keep numbers of 128 bits and fields that are not aligned", () => {
    const input = {
      criticalWarning: { readOnly: true },
      temperatureKelvin: 0x1234,
      availableSparePercent: 99,
      dataUnitsRead: 2n ** 127n + 5n,
      errorLogEntries: 2n ** 64n,
      temperatureSensorsKelvin: [300, 0, 301]
    }
    const bytes = log.healthLog.encode(input)
    assert.deepStrictEqual([bytes[0], bytes[1], bytes[2], bytes[3]], [8, 0x34, 0x12, 99])
    const health = good(log.healthLog.decode(bytes))
    assert.strictEqual(health.dataUnitsRead, 2n ** 127n + 5n)
    assert.strictEqual(health.errorLogEntries, 2n ** 64n)
    assert.deepStrictEqual(health.temperatureSensorsKelvin, [300, 0, 301, 0, 0, 0, 0, 0])
  })

  it("of command effects say what spdk_nvme_identify says, and encode to the same bytes", () => {
    const bytes = bytesOf("commandEffects")
    const effects = good(log.commandEffectsLog.decode(bytes))
    const supported = (list: ReadonlyArray<{ readonly supported: number }>) =>
      list.flatMap((effect, opcode) => (effect.supported === 1 ? [opcode] : []))
    assert.deepStrictEqual(supported(effects.admin), [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18])
    assert.deepStrictEqual(supported(effects.io), [0, 1, 2, 5, 8, 9, 0x0d, 0x0e, 0x11, 0x15, 0x19])
    assert.strictEqual(effects.io[1]?.changesBlocks, 1)
    assert.strictEqual(effects.io[2]?.changesBlocks, 0)
    sameHex(log.commandEffectsLog.encode(effects), bytes)
  })

  it("of discovery decode to transport ids, and encode to the same bytes", () => {
    const header = good(log.decodeDiscoveryHeader(bytesOf("discoveryHeader")))
    assert.strictEqual(header.records, 2)
    const bytes = bytesOf("discoveryLog")
    const entries = Array.from({ length: header.records }, (_, i) =>
      good(log.decodeDiscoveryEntry(bytes.subarray(1024 * (i + 1))))
    )
    const found = entries.map(subsystemOf)
    assert.deepStrictEqual(
      found.map(({ subnqn, transportId, type }) => [type, subnqn, transportId?.traddr, transportId?.trsvcid]),
      [
        ["discovery", "nqn.2014-08.org.nvmexpress.discovery", "127.0.0.1", "44281"],
        ["nvme", "nqn.2016-06.io.spdk:golden", "127.0.0.1", "44281"]
      ]
    )
    assert.strictEqual(found[1]?.transportId?.trtype, "TCP")
    assert.strictEqual(found[1]?.transportId?.adrfam, "IPv4")
    sameHex(log.encodeDiscoveryLog(header.generation, entries), bytes)
  })

  it("of a discovery service that lies are refused", () => {
    const header = bytesOf("discoveryHeader").slice()
    new DataView(header.buffer).setBigUint64(8, 2n ** 63n, true)
    assert.match(ruleOf(log.decodeDiscoveryHeader(header)), /9223372036854775808 records/)
    new DataView(header.buffer).setBigUint64(8, 0n, true)
    new DataView(header.buffer).setUint16(16, 1, true)
    assert.match(ruleOf(log.decodeDiscoveryHeader(header)), /record format 1/)
    assert.match(ruleOf(log.decodeDiscoveryEntry(new Uint8Array(1023))), /1023 bytes/)
    const loop = log.encodeDiscoveryLog(1n, [{ trtype: 254, adrfam: 254, subtype: 9, subnqn: "x", traddr: "y" }])
    const strange = subsystemOf(good(log.decodeDiscoveryEntry(loop.subarray(1024))))
    assert.deepStrictEqual([strange.transportId, strange.type], [undefined, "other"])
  })

  it("of ANA that lie about groups, namespaces and states are refused", () => {
    const of = (change: (view: DataView) => void) => {
      const bytes = log.encodeAnaLog({
        changeCount: 1n,
        groups: [{ groupId: 1, state: "change", changeCount: 0n, namespaceIds: [1, 2] }]
      })
      change(new DataView(bytes.buffer))
      return ruleOf(log.decodeAnaLog(bytes))
    }
    assert.match(
      of((view) => view.setUint16(8, 2, true)),
      /ends before group 1/
    )
    assert.match(
      of((view) => view.setUint32(20, 3, true)),
      /namespaces of group 0/
    )
    assert.match(
      of((view) => view.setUint32(20, 0xffff_ffff, true)),
      /namespaces of group 0/
    )
    assert.match(
      of((view) => view.setUint8(32, 9)),
      /unknown state 9/
    )
    assert.match(ruleOf(log.decodeAnaLog(new Uint8Array(15))), /15 bytes/)
  })

  it("of changed namespaces know when there were too many", () => {
    assert.deepStrictEqual(good(log.decodeChangedNamespaces(log.encodeChangedNamespaces([3, 9]))), {
      namespaceIds: [3, 9],
      overflow: false
    })
    const many = Array.from({ length: 1025 }, (_, i) => i + 1)
    assert.isTrue(good(log.decodeChangedNamespaces(log.encodeChangedNamespaces(many))).overflow)
    const full = many.slice(0, 1024)
    assert.deepStrictEqual(good(log.decodeChangedNamespaces(log.encodeChangedNamespaces(full))).namespaceIds, full)
  })
})

describe("features and events", () => {
  it("keep every bit of their dword", () => {
    assert.strictEqual(featureWords.numberOfQueues.encode({ submission: 126, completion: 126 }), 0x007e007e)
    assert.deepStrictEqual(featureWords.numberOfQueues.decode(0x007e007f), { submission: 127, completion: 126 })
    assert.strictEqual(featureWords.asyncEvents.encode({ discoveryLogChange: true, readOnly: true }), 0x80000008)
    assert.isTrue(featureWords.asyncEvents.decode(0x80000000).discoveryLogChange)
    assert.strictEqual(featureWords.keepAlive.encode({ millis: 0xffff_ffff }), 0xffff_ffff)
    assert.throws(() => featureWords.powerManagement.encode({ powerState: 32 }), RangeError)
  })

  it("round-trip a timestamp of 48 bits", () => {
    for (const millis of [0, 1, 2 ** 32 - 1, 2 ** 32, 1_800_000_000_000, 2 ** 48 - 1]) {
      assert.strictEqual(good(decodeTimestamp(encodeTimestamp(millis))).millis, millis)
    }
    const bytes = encodeTimestamp(5)
    bytes[6] = 0b011
    assert.deepStrictEqual(good(decodeTimestamp(bytes)), { millis: 5, fromHost: true, mayHaveStopped: true })
  })

  it("name the events that SPDK sends", () => {
    assert.deepStrictEqual(decodeAsyncEvent(0x00040002), { _tag: "NamespaceAttributeChanged" })
    assert.deepStrictEqual(decodeAsyncEvent(0x000c0302), { _tag: "AnaChanged" })
    assert.deepStrictEqual(decodeAsyncEvent(0x0070f002), { _tag: "DiscoveryLogChanged" })
    assert.strictEqual(encodeAsyncEvent(2, 0xf0, 0x70), 0x0070f002)
    assert.deepStrictEqual(decodeAsyncEvent(0x00020101), { _tag: "HealthWarning", warning: "temperature" })
    assert.deepStrictEqual(decodeAsyncEvent(0x00ff4202), { _tag: "Other", type: 2, info: 0x42, logPage: 0xff })
  })
})

describe("any bytes", () => {
  it("decode or are refused, and never throw", () => {
    const decoders: ReadonlyArray<(bytes: Uint8Array) => Result.Result<unknown, Malformed>> = [
      identify.identifyController.decode,
      (bytes) => Result.flatMap(identify.identifyNamespace.decode(bytes), identify.namespaceFormat),
      identify.decodeNamespaceList,
      identify.decodeDescriptors,
      log.decodeErrorLog,
      log.healthLog.decode,
      log.firmwareLog.decode,
      log.decodeChangedNamespaces,
      log.commandEffectsLog.decode,
      log.decodeAnaLog,
      log.decodeDiscoveryHeader,
      (bytes) => Result.map(log.decodeDiscoveryEntry(bytes), subsystemOf),
      decodeTimestamp
    ]
    withSeed((seed) => {
      const random = makeRandom(seed)
      const rounds = process.env["EFFECT_SPDK_LONG"] === "1" ? 20_000 : 300
      for (let round = 0; round < rounds; round++) {
        // With an offset into its memory, because all of it is read through views.
        const memory = new Uint8Array(5000)
        const offset = random.below(32)
        const bytes = memory.subarray(
          offset,
          offset + random.pick([0, 1, 15, 16, 17, 512, 1024, 4096, random.below(4900)])
        )
        const dense = random.chance(0.5)
        for (let i = 0; i < bytes.length; i++) bytes[i] = dense || random.chance(0.02) ? random.below(256) : 0
        for (const decode of decoders) decode(bytes)
      }
    })
  })

  it("that a field cannot hold are refused when they are written", () => {
    const one = struct("one", 16, { number: u16(0), text: ascii(2, 4), name: utf8(6, 4) })
    assert.throws(() => one.encode({ number: 65_536 }), RangeError)
    assert.throws(() => one.encode({ number: -1 }), RangeError)
    assert.throws(() => one.encode({ text: "toolong" }), RangeError)
    assert.throws(() => one.encode({ text: "é" }), RangeError)
    assert.throws(() => one.encode({ name: "four" }), RangeError)
    assert.throws(() => struct("short", 2, { late: u16(1) }), RangeError)
    assert.deepStrictEqual(good(one.decode(one.encode({ number: 7, text: "ab", name: "äb" }))), {
      number: 7,
      text: "ab",
      name: "äb"
    })
  })
})
