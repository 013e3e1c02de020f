import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { normalizePciAddress } from "../src/internal/nvme/transportId.ts"
import * as NvmeTransportId from "../src/NvmeTransportId.ts"
import { makeRandom, withSeed } from "./support/random.ts"

const subnqn = "nqn.2016-06.io.spdk:disk1"
const discovery = "nqn.2014-08.org.nvmexpress.discovery"

const refusal = (result: NvmeTransportId.ParseResult) =>
  Result.match(result, {
    onSuccess: (value) => assert.fail(`${JSON.stringify(value)} was taken`),
    onFailure: ({ reason }) => `${reason.field} ${reason.rule}`
  })

describe("NvmeTransportId", () => {
  it("reads what SPDK's programs read", () => {
    const expected = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: "4420", subnqn, priority: 0 }
    for (const text of [
      `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:${subnqn}`,
      `  TRTYPE=tcp\tadrfam=ipv4\ntraddr:127.0.0.1 subnqn=${subnqn}  `,
      `subnqn:${subnqn} traddr:127.0.0.1 trtype:Tcp priority:0`
    ]) {
      assert.deepStrictEqual(Result.getOrThrow(NvmeTransportId.parse(text)), expected as NvmeTransportId.TransportId)
    }
    // The first separator ends the key, so that addresses may contain the other one.
    const six = Result.getOrThrow(NvmeTransportId.parse("trtype:TCP traddr:fe80::1%eth0 trsvcid:8009"))
    assert.deepStrictEqual([six.traddr, six.adrfam, six.subnqn], ["fe80::1%eth0", "IPv6", discovery])
    const pcie = Result.getOrThrow(NvmeTransportId.parse("trtype:PCIe traddr:0000:5e:00.0"))
    assert.deepStrictEqual(
      [pcie.trtype, pcie.traddr, pcie.adrfam, pcie.trsvcid],
      ["PCIe", "0000:5e:00.0", undefined, ""]
    )
  })

  it("refuses what has no meaning, and names the field", () => {
    const cases: ReadonlyArray<readonly [text: string, refused: RegExp]> = [
      ["", /^trtype is none of/],
      ["traddr:127.0.0.1", /^trtype is none of/],
      ["trtype:FC traddr:x", /^trtype is none of PCIe, TCP, RDMA, VFIOUSER/],
      ["trtype:TCP", /^traddr is not a string/],
      ["trtype:TCP traddr:", /^traddr has no value/],
      ["trtype:TCP traddr:1.2.3.4 traddr:1.2.3.5", /^traddr comes twice/],
      ["trtype:TCP 1.2.3.4", /^transportId has the word "1.2.3.4" without a key/],
      ["trtype:TCP traddr:1.2.3.4 colour:red", /^transportId has the key "colour", which is no key/],
      ["trtype:TCP traddr:1.2.3.4 hostnqn:x", /"hostnqn", which is an option of connect/],
      ["trtype:TCP traddr:1.2.3.4 adrfam:IPv6", /^traddr is not an address of IPv6/],
      ["trtype:TCP traddr:::1 adrfam:IPv4", /^traddr is not an address of IPv4/],
      ["trtype:TCP traddr:1.2.3.4 adrfam:IB", /^adrfam is none of IPv4, IPv6$/],
      ["trtype:TCP traddr:1.2.3.4 trsvcid:0", /^trsvcid is not the number of a port/],
      ["trtype:TCP traddr:1.2.3.4 trsvcid:65536", /^trsvcid is not the number of a port/],
      ["trtype:TCP traddr:1.2.3.4 trsvcid:http", /^trsvcid is not the number of a port/],
      [`trtype:TCP traddr:1.2.3.4 subnqn:${"n".repeat(224)}`, /^subnqn is longer than 223 bytes/],
      ["trtype:TCP traddr:1.2.3.4 priority:1000", /^priority is not a whole number/],
      [`trtype:TCP traddr:${"x".repeat(256)}`, /^traddr is longer than 255 bytes/],
      ["trtype:PCIe traddr:5e", /^traddr is not a PCI address/],
      ["trtype:PCIe traddr:5e:00.0 adrfam:IPv4", /^adrfam has no effect with PCIe/],
      ["trtype:PCIe traddr:5e:00.0 trsvcid:1", /^trsvcid has no effect with PCIe/]
    ]
    for (const [text, rule] of cases) assert.match(refusal(NvmeTransportId.parse(text)), rule, text)
  })

  it("reads PCI addresses in all forms of SPDK, and writes one", () => {
    const forms: ReadonlyArray<readonly [address: string, normal: string | undefined]> = [
      ["0000:5e:00.0", "0000:5e:00.0"],
      ["10000:5E:1f.7", "10000:5e:1f.7"],
      ["0.5e.0.1", "0000:5e:00.1"],
      ["1:5e:3", "0001:5e:03.0"],
      ["5e:00.0", "0000:5e:00.0"],
      ["5e.00.2", "0000:5e:00.2"],
      ["5e:1", "0000:5e:01.0"],
      ["5e.1", "0000:5e:01.0"],
      ["100:00.0", undefined],
      ["5e:20.0", undefined],
      ["5e:00.8", undefined],
      ["5g:00.0", undefined],
      ["5e", undefined],
      ["", undefined],
      ["0000:5e:00.0.0", undefined]
    ]
    for (const [address, normal] of forms) assert.strictEqual(normalizePciAddress(address), normal, address)
  })

  it("constructors check and fill in", () => {
    // A subsystem's name is its target's choice.
    for (const foreign of ["testnqn", "n", "n".repeat(223)]) {
      const parsed = Result.getOrThrow(NvmeTransportId.parse(`trtype:TCP traddr:1.2.3.4 subnqn:${foreign}`))
      assert.strictEqual(parsed.subnqn, foreign)
    }
    const tcp = Result.getOrThrow(NvmeTransportId.tcp({ address: "::1", port: 8009, subnqn }))
    assert.strictEqual(NvmeTransportId.format(tcp), `trtype:TCP adrfam:IPv6 traddr:::1 trsvcid:8009 subnqn:${subnqn}`)
    const rdma = Result.getOrThrow(NvmeTransportId.rdma({ address: "mlx5_0", adrfam: "IB" }))
    assert.deepStrictEqual([rdma.trtype, rdma.adrfam, rdma.trsvcid], ["RDMA", "IB", "4420"])
    assert.strictEqual(Result.getOrThrow(NvmeTransportId.pcie("5e:0.0")).traddr, "0000:5e:00.0")
    assert.strictEqual(Result.getOrThrow(NvmeTransportId.vfioUser("/var/run/muser")).trtype, "VFIOUSER")
    assert.match(refusal(NvmeTransportId.tcp({ address: "1.2.3.4", port: 0 })), /^port is not/)
    assert.match(refusal(NvmeTransportId.tcp({ address: "1.2.3.4", port: 1.5 })), /^port is not/)
    assert.match(refusal(NvmeTransportId.tcp({ address: "a b" })), /^traddr contains white space/)
    assert.match(refusal(NvmeTransportId.vfioUser("")), /^traddr is empty/)
  })

  it("goes to a string and back unchanged, also by Schema", () => {
    withSeed((seed) => {
      const random = makeRandom(seed)
      for (let round = 0; round < 200; round++) {
        const address = random.pick(["10.0.0.1", "::1", "storage.example", "fe80::2"])
        const made = random.chance(0.2)
          ? NvmeTransportId.pcie(
              `${random.below(256).toString(16)}:${random.below(32).toString(16)}.${random.below(8)}`
            )
          : NvmeTransportId.tcp({
              address,
              port: 1 + random.below(65_535),
              subnqn: random.chance(0.5) ? subnqn : undefined,
              priority: random.below(1000)
            })
        const id = Result.getOrThrow(made)
        const text = NvmeTransportId.format(id)
        assert.deepStrictEqual(Result.getOrThrow(NvmeTransportId.parse(text)), id)
        const decoded = Schema.decodeUnknownSync(NvmeTransportId.TransportIdFromString)(text)
        assert.strictEqual(Schema.encodeSync(NvmeTransportId.TransportIdFromString)(decoded), text)
        assert.deepStrictEqual(Schema.decodeUnknownSync(NvmeTransportId.TransportId)({ ...id }), { ...id })
      }
    })
    assert.throws(() => Schema.decodeUnknownSync(NvmeTransportId.TransportIdFromString)("trtype:TCP"), /traddr/)
    const bad = { trtype: "TCP", adrfam: "IPv4", traddr: "1.2.3.4", trsvcid: "x", subnqn, priority: 0 }
    assert.throws(() => Schema.decodeUnknownSync(NvmeTransportId.TransportId)(bad), /port/)
  })
})
