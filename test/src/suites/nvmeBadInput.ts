/** What callers get wrong with NVMe is refused before anything reaches a device, with the field and the rule. */
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Nvme from "@effect-spdk/core/Nvme"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { contract, failsWith } from "../support/harness.ts"
import { connected, type NvmeSuite, opened, sharedTarget } from "../support/nvmeSuite.ts"

const somewhere = "trtype:TCP traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2016-06.io.spdk:x"

const refused = <A, E, R>(effect: Effect.Effect<A, E, R>, field: string, rule: RegExp) =>
  Effect.map(failsWith(effect, "InvalidArgument", { field }), (reason) => {
    assert.match(reason.rule, rule, reason.message)
    assert.isUndefined(reason.nvme, `${reason.message} reached the device`)
  })

/** What callers without types pass. */
const untyped = (options: Readonly<Record<string, unknown>>): Nvme.ConnectOptions => options

export const suite: NvmeSuite = (name, layer, _capabilities, factory) => {
  const target = sharedTarget(factory)
  contract(name, layer, (check) => {
    check("transport ids", () =>
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [id: unknown, field: string, rule: RegExp]> = [
          ["", "trtype", /none of/],
          ["trtype:TCP", "traddr", /not a string/],
          [`${somewhere} traddr:1.2.3.4`, "traddr", /comes twice/],
          ["trtype:TCP traddr:127.0.0.1 trsvcid:99999", "trsvcid", /port/],
          [`trtype:TCP traddr:127.0.0.1 subnqn:${"x".repeat(224)}`, "subnqn", /longer than 223 bytes/],
          [{ trtype: "TCP", traddr: "" }, "traddr", /empty/],
          [{ trtype: "SCSI", traddr: "x" }, "trtype", /none of/],
          [{ trtype: "TCP", traddr: "127.0.0.1", trsvcid: 4420 }, "trsvcid", /as a string/],
          [{ trtype: "PCIe", traddr: "zz" }, "traddr", /PCI address/],
          [undefined, "transportId", /not a transport id/],
          [null, "transportId", /not a transport id/]
        ]
        for (const [id, field, rule] of cases) {
          const transportId = id as string // a caller without types
          yield* refused(Effect.scoped(Nvme.connect(transportId)), field, rule)
          yield* refused(Nvme.probe(transportId), field, rule)
          yield* refused(Stream.runDrain(Nvme.discover(transportId)), field, rule)
        }
      })
    )

    check("every option of connect", () =>
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [field: string, value: unknown, rule: RegExp]> = [
          ["hostnqn", "host", /shorter/],
          ["hostnqn", "nqn.2016-13.io.spdk:x", /month 13/],
          ["hostnqn", 1, /not a string/],
          ["hostId", "123", /UUID/],
          ["sourceAddress", "somewhere", /IP address/],
          ["sourcePort", 0, /1 to 65535/],
          ["sourcePort", 65_536, /1 to 65535/],
          ["ioQueues", 0, /1 to 65535/],
          ["ioQueues", 1.5, /whole number/],
          ["ioQueueSize", 1, /2 to 65536/],
          ["ioQueueSize", Number.NaN, /whole number/],
          ["adminQueueSize", 1, /2 to 4096/],
          ["adminQueueSize", 4097, /2 to 4096/],
          ["keepAlive", "soon", /duration/],
          ["keepAlive", Infinity, /infinite/],
          ["keepAlive", 0, /between a millisecond/],
          ["connectTimeout", "0 seconds", /between a millisecond/],
          ["connectTimeout", -5, /millisecond|duration/],
          ["adminTimeout", {}, /duration|millisecond/],
          ["ioTimeout", 0, /between a millisecond/],
          ["ioTimeout", "a while", /duration/],
          ["ioTimeout", "2 hours", /more than an hour/],
          ["headerDigest", 1, /boolean/],
          ["dataDigest", "yes", /boolean/],
          ["retries", -1, /0 to 255/],
          ["retries", 256, /0 to 255/],
          ["psk", "", /name of a key/],
          ["dhchapKey", "a\0b", /name of a key/],
          ["dhchapControllerKey", "key", /needs dhchapKey/],
          ["colour", "red", /not an option/]
        ]
        for (const [field, value, rule] of cases) {
          yield* refused(Effect.scoped(Nvme.connect(somewhere, untyped({ [field]: value }))), field, rule)
        }
        const device = "trtype:PCIe traddr:0000:01:00.0"
        yield* refused(Effect.scoped(Nvme.connect(device, { ioTimeout: "1 second" })), "ioTimeout", /local device/)
        yield* refused(Nvme.probe(somewhere, untyped({ retries: 999 })), "retries", /0 to 255/)
        yield* refused(Stream.runDrain(Nvme.discover(somewhere, untyped({ tries: 1 }))), "tries", /not an option/)
      })
    )

    check("controllers: namespaces, commands, log pages, features", () =>
      Effect.gen(function* () {
        const { controller } = yield* connected(target)
        for (const nsid of [0, -1, 1.5, 0xffff_ffff, Number.NaN]) {
          yield* refused(Effect.scoped(controller.namespace(nsid)), "nsid", /2\^32 - 2/)
        }
        const commands: ReadonlyArray<readonly [command: Nvme.PassthruCommand, field: string, rule: RegExp]> = [
          [{ opcode: 256 }, "opcode", /0 to 255/],
          [{ opcode: 0.5 }, "opcode", /0 to 255/],
          [{ opcode: 0x0c }, "opcode", /asynchronous event/],
          [{ opcode: 0x01 }, "opcode", /creates a submission queue/],
          [{ opcode: 0x00 }, "opcode", /deletes a submission queue/],
          [{ opcode: 0x04 }, "opcode", /deletes a completion queue/],
          [{ opcode: 0x05 }, "opcode", /creates a completion queue/],
          [{ opcode: 0x08, cdw10: 0x1_0000 }, "opcode", /aborts a command/],
          [{ opcode: 0x7c }, "opcode", /doorbells/],
          [{ opcode: 0x7f }, "opcode", /Fabrics/],
          [{ opcode: 0x09, cdw10: 0x8000_000d, cdw11: 1 }, "cdw10", /host memory buffer/],
          [{ opcode: 0x06, cdw10: 1 }, "lengthBytes", /less than the 4096 bytes/],
          [{ opcode: 0x06, cdw10: 1, lengthBytes: 4092 }, "lengthBytes", /less than the 4096 bytes/],
          [{ opcode: 0x02, cdw10: 0x007f_0002, lengthBytes: 508 }, "lengthBytes", /less than the 512 bytes/],
          [
            { opcode: 0x02, cdw10: 0xffff_0002, cdw11: 1, lengthBytes: 4096 },
            "lengthBytes",
            /less than the 524288 bytes/
          ],
          [{ opcode: 0x18, lengthBytes: 4 }, "opcode", /without data/],
          [{ opcode: 0x06, cdw10: -1, lengthBytes: 4096 }, "cdw10", /32 bits/],
          [{ opcode: 0x06, nsid: 2 ** 32, lengthBytes: 4096 }, "nsid", /32 bits/],
          [{ opcode: 0x06, data: new Uint8Array(4) }, "data", /reads/],
          [{ opcode: 0x09, lengthBytes: 4 }, "lengthBytes", /writes/],
          [{ opcode: 0x06, lengthBytes: 5 }, "lengthBytes", /multiple of 4/],
          [{ opcode: 0x06, lengthBytes: 2 ** 40 }, "lengthBytes", /multiple of 4/]
        ]
        for (const [command, field, rule] of commands) yield* refused(controller.admin(command), field, rule)
        const buffer = yield* DmaBuffer.make(4096)
        yield* refused(controller.admin({ opcode: 0x06, buffer, lengthBytes: 4096 }), "buffer", /together/)
        const { features, logPages } = controller
        yield* refused(logPages.raw({ logPage: 256, lengthBytes: 4 }), "logPage", /0 to 255/)
        yield* refused(logPages.raw({ logPage: 2, lengthBytes: 0 }), "lengthBytes", /multiple of 4/)
        yield* refused(logPages.raw({ logPage: 2, lengthBytes: 6 }), "lengthBytes", /multiple of 4/)
        yield* refused(logPages.raw({ logPage: 2, lengthBytes: 4, offsetBytes: 2 }), "offsetBytes", /multiple of 4/)
        yield* refused(logPages.raw({ logPage: 2, lengthBytes: 4, specificId: 65_536 }), "specificId", /65535/)
        yield* refused(logPages.errors(0), "count", /1 to 256/)
        const strange = "speed" as Nvme.FeatureName // a caller without types
        yield* refused(features.get(strange), "name", /feature with a name/)
        yield* refused(features.set("powerManagement", { powerState: 32 }), "value", /5 bits/)
        const misspelt = { enable: true } as Nvme.FeatureInput<"volatileWriteCache">
        yield* refused(features.set("volatileWriteCache", misspelt), "value.enable", /none of enabled/)
        const hostMemory = { feature: 0x0d, dword11: 1, dword12: 1 }
        yield* refused(features.setRaw(hostMemory), "feature", /host memory buffer/)
        yield* refused(features.getRaw({ feature: 300 }), "feature", /0 to 255/)
        yield* refused(features.getRaw({ feature: 1, lengthBytes: 3 }), "lengthBytes", /multiple of 4/)
        yield* refused(features.setTimestamp(new Date(Number.NaN)), "time", /date/)
      })
    )

    check("namespaces: ranges, buffers, commands", () =>
      Effect.gen(function* () {
        const { controller, disk } = yield* opened(target)
        const size = disk.sizeBytes
        const buffer = yield* DmaBuffer.make(4096)
        yield* refused(disk.read(1, buffer), "offsetBytes", /block size 512/)
        yield* refused(disk.write(size, buffer), "offsetBytes", /end of the namespace/)
        yield* refused(disk.write(size - 512, buffer), "buffer.byteLength", /past the end of the namespace/)
        yield* refused(disk.readBytes(0, 100), "lengthBytes", /block size/)
        yield* refused(disk.unmap(0, 0), "lengthBytes", /at least one block/)
        yield* refused(disk.compare(7, buffer), "offsetBytes", /block size/)
        yield* refused(disk.compare(size, buffer), "offsetBytes", /past the end/)
        const long = yield* DmaBuffer.make(controller.maxTransferBytes + 512)
        yield* refused(disk.compare(0, long), "buffer.byteLength", /one command/)
        yield* refused(disk.datasetManagement([], { deallocate: true }), "ranges", /1 to 256/)
        const range = { offsetBytes: 0, lengthBytes: 512 }
        const many = Array.from({ length: 257 }, () => range)
        yield* refused(disk.datasetManagement(many, { deallocate: true }), "ranges", /1 to 256/)
        const bad = { offsetBytes: 512, lengthBytes: 511 }
        yield* refused(disk.datasetManagement([range, bad], {}), "ranges[1].lengthBytes", /block size/)
        yield* refused(disk.copy([], 0), "sources", /are not 1 to/)
        yield* refused(disk.copy([bad], 0), "sources[0].lengthBytes", /block size/)
        yield* refused(disk.copy([range], size), "destinationOffsetBytes", /past the end/)
        yield* refused(disk.io({ opcode: 999 }), "opcode", /0 to 255/)
        yield* refused(disk.io({ opcode: 2, cdw12: 2 ** 33, lengthBytes: 512 }), "cdw12", /32 bits/)
        // A device moves what the command says: here more than there is memory for.
        yield* refused(disk.io({ opcode: 2, cdw12: 8, lengthBytes: 4096 }), "lengthBytes", /less than the 4608 bytes/)
        yield* refused(disk.io({ opcode: 2 }), "lengthBytes", /less than the 512 bytes/)
        yield* refused(disk.io({ opcode: 1, cdw12: 8, buffer }), "buffer.byteLength", /less than the 4608 bytes/)
        yield* refused(disk.io({ opcode: 5, data: new Uint8Array(4) }), "data.length", /less than the 512 bytes/)
        yield* refused(disk.io({ opcode: 9, cdw10: 1, data: new Uint8Array(16) }), "data.length", /less than the 32/)
        yield* refused(disk.io({ opcode: 0x19, data: new Uint8Array(4) }), "data.length", /less than the 32/)
        yield* refused(disk.io({ opcode: 0x0e, cdw10: 1023, lengthBytes: 64 }), "lengthBytes", /less than the 4096/)
        yield* refused(
          disk.io({ opcode: 0x0e, cdw10: 0xffff_ffff, lengthBytes: 64 }),
          "lengthBytes",
          /less than the 17/
        )
        yield* refused(disk.io({ opcode: 0x7a, cdw12: 15, lengthBytes: 32 }), "lengthBytes", /less than the 64/)
        yield* refused(disk.io({ opcode: 0x12, cdw11: 15, lengthBytes: 32 }), "lengthBytes", /less than the 64/)
        yield* refused(disk.io({ opcode: 0x0d, data: new Uint8Array(8) }), "data.length", /less than the 16/)
        yield* refused(disk.io({ opcode: 0x11, data: new Uint8Array(8) }), "data.length", /less than the 16/)
        yield* refused(disk.io({ opcode: 0x15, data: new Uint8Array(4) }), "data.length", /less than the 8/)
        yield* refused(disk.io({ opcode: 0x7d, cdw12: 8, buffer }), "buffer.byteLength", /less than the 4608/)
        const small = { lengthBytes: 64 }
        const ask = (command: object) => controller.admin({ ...small, opcode: 0, ...command })
        yield* refused(ask({ opcode: 0x1a, cdw10: 1023, cdw11: 1 }), "lengthBytes", /less than the 4096/)
        yield* refused(ask({ opcode: 0x82, cdw11: 512 }), "lengthBytes", /less than the 512/)
        yield* refused(ask({ opcode: 0x86, cdw12: 1023 }), "lengthBytes", /less than the 4096/)
        yield* refused(ask({ opcode: 0x0a, cdw10: 0x0c }), "lengthBytes", /less than the 256/)
        const data = new Uint8Array(64)
        yield* refused(controller.admin({ opcode: 0x11, cdw10: 1023, data }), "data.length", /less than the 4096/)
        yield* refused(controller.admin({ opcode: 0x81, cdw11: 512, data }), "data.length", /less than the 512/)
        yield* refused(controller.admin({ opcode: 0x15, nsid: 1, data }), "data.length", /less than the 4096/)
        const gone = yield* Effect.scoped(DmaBuffer.make(512))
        yield* failsWith(disk.read(0, gone), "Released", { what: "buffer" })
        yield* failsWith(disk.compare(0, gone), "Released", { what: "buffer" })
        yield* disk.readBytes(0, 512)
      })
    )
  })
}
