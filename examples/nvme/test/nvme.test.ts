/** The example says what is wrong with what it is told, before it looks for anybody. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"

const program = fileURLToPath(new URL("../../dist/nvme/src/main.js", import.meta.url))

const run = (transportId: string) =>
  spawnSync(process.execPath, [program, transportId], {
    env: { ...process.env, SPDK_ENGINE: "embedded" },
    encoding: "utf8",
    timeout: 30_000
  })

describe("nvme example", () => {
  it("names what is wrong with a transport id", () => {
    const { status, stderr } = run("trtype:TCP traddr:127.0.0.1 trsvcid:99999")
    expect(stderr).toContain("trsvcid")
    expect(stderr).toContain("1 to 65535")
    expect(status).toBe(1)
  })

  it("says when nobody is there", () => {
    const { status, stderr } = run("trtype:TCP traddr:127.0.0.1 trsvcid:1 subnqn:nqn.2016-06.io.spdk:disk1")
    expect(stderr).toContain("Nvme.connect")
    expect(status).toBe(1)
  })
})
