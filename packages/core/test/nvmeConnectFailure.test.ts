/** What the first lines of SPDK's log say about a connection that did not come about. 25.09 and 26.05 have the same words. */
import { assert, describe, it } from "@effect/vitest"
import { connectFailure } from "../src/internal/libspdk/connectFailure.ts"
import { connectRefusal } from "../src/internal/nvme/connectRefusal.ts"
import type { Reason } from "../src/SpdkError.ts"

const context = { operation: "Nvme.connect", resource: "here" }

const connectStatus = (sc: number) =>
  `Connect command failed, rc -5, trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:04420 subnqn:n; Connect command completed with error: sct 1, sc ${sc}`

describe("connectFailure", () => {
  const cases: ReadonlyArray<readonly [number, string, Reason["_tag"], string | undefined, boolean]> = [
    [
      -5,
      "connect() failed, err = 111; sock connection error -111 (Connection refused)",
      "IoFailed",
      "ECONNREFUSED",
      true
    ],
    [-5, "connect() failed, errno = 111", "IoFailed", "ECONNREFUSED", true],
    [-5, "sock connection error -113 (No route to host)", "IoFailed", "EHOSTUNREACH", true],
    [-5, "connect() failed, errno = 110", "TimedOut", "ETIMEDOUT", true],
    // Elsewhere EINVAL is an argument.
    [-5, "connect() failed, errno = 22", "IoFailed", "EIO", false],
    [-5, connectStatus(0x80), "NotSupported", undefined, false],
    [-5, connectStatus(0x81), "Busy", undefined, true],
    [-5, connectStatus(0x82), "NotFound", undefined, false],
    [-5, connectStatus(0x84), "PermissionDenied", undefined, false],
    [-5, connectStatus(0x83), "IoFailed", undefined, false],
    [-5, "", "IoFailed", "EIO", false],
    [-5, "Failed to initialize SSD: 127.0.0.1", "IoFailed", "EIO", false],
    [-110, "connect() failed, err = 111", "TimedOut", "ETIMEDOUT", true]
  ]
  it.each(cases)("makes of %i, %j %s (%s)", (status, text, tag, errno, isRetryable) => {
    const { reason } = connectFailure(status, text, context)
    assert.strictEqual(reason._tag, tag)
    assert.strictEqual(reason.errno, errno)
    assert.strictEqual(reason.isRetryable, isRetryable)
    assert.strictEqual(reason.resource, "here")
  })

  it("a status of another type is what it is anywhere", () => {
    assert.strictEqual(connectRefusal({ sct: 0, sc: 0x82, dnr: false }, context).reason._tag, "IoFailed")
    assert.isFalse(connectRefusal({ sct: 1, sc: 0x81, dnr: true }, context).isRetryable)
  })
})
