import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import {
  type AlreadyExists,
  type Busy,
  ConfigRejected,
  EngineUnavailable,
  type ErrnoReason,
  fail,
  failInvalid,
  fromCompletion,
  fromErrno,
  fromNvme,
  fromRpcCode,
  handleReasons,
  InvalidArgument,
  invalid,
  isSpdkError,
  NoMemory,
  OptionsClash,
  Reason,
  Released,
  RpcFailed,
  RpcProtocol,
  RpcUnreachable,
  SpdkError,
  type SpdkErrorOf,
  StartFailed,
  TimedOut
} from "../src/SpdkError.ts"

const context = { operation: "Bdev.write", resource: "disk0" }

/** What an operation of two reasons is typed as. */
const twoReasons = (error: NoMemory | Released): Effect.Effect<string, SpdkError<NoMemory | Released>> => fail(error)
const noMemory = new NoMemory(context)
const released = new Released({ ...context, what: "buffer" })

describe("SpdkError", () => {
  it("says on one line what was asked of what, the reason and the rule", () => {
    const error = invalid("Bdev.write", "offsetBytes", "is not a multiple of the block size 512", 17, "disk0")
    const text = `Bdev.write on "disk0": InvalidArgument: offsetBytes 17 is not a multiple of the block size 512`
    assert.strictEqual(error.message, text)
    assert.strictEqual(String(error), `SpdkError: ${text}`)
    assert.strictEqual(error.stack?.split("\n")[0], `SpdkError: ${text}`)
  })

  it("shows errno and NVMe status in its message, and the underlying error as its cause", () => {
    const cause = new Error("from below")
    const error = fromErrno(-12, { operation: "DmaBuffer.make", cause })
    assert.strictEqual(error.message, "DmaBuffer.make: NoMemory: no memory is available (ENOMEM)")
    assert.strictEqual(error.cause, cause)
    assert.notInclude(Object.keys(error), "cause")
    assert.strictEqual(
      fromNvme(2, 0x81, true, context).message,
      `Bdev.write on "disk0": IoFailed: the device failed the operation (NVMe status 0x02/0x81, do not retry)`
    )
    assert.strictEqual(
      fromRpcCode("bdev_get_bdevs", -19, "No such device", undefined, "nix").message,
      `bdev_get_bdevs on "nix": NotFound: No such device (ENODEV)`
    )
  })

  it("shortens long values and survives those that JSON does not have", () => {
    assert.isBelow(invalid("op", "field", "is bad", "x".repeat(10_000)).message.length, 300)
    const circular: Record<string, unknown> = {}
    circular["self"] = circular
    for (const value of [circular, Symbol("s"), () => 1, 12n, Number.NaN, null]) {
      assert.include(invalid("op", "field", "is bad", value).message, "is bad")
    }
  })

  it("is known by its guard", () => {
    assert.isTrue(isSpdkError(new SpdkError({ reason: noMemory })))
    assert.isFalse(isSpdkError(noMemory))
    assert.isFalse(isSpdkError(new Error("no")))
  })
})

const everyReason: ReadonlyArray<Reason> = Reason.members.map((member) => {
  // Each constructor takes the common fields and some of these; the others are ignored, and its check holds.
  const fields = {
    ...context,
    errno: "EIO",
    errnoCode: 5,
    nvme: { sct: 0, sc: 6, dnr: true },
    cause: new Error("from below"),
    field: "f",
    rule: "r",
    value: 1,
    what: "buffer",
    limitMillis: 10,
    method: "m",
    code: -1,
    rpcMessage: "no",
    address: "unix:/x",
    engine: "libspdk",
    lookedFor: ["a", "b"],
    option: "cores",
    running: "[0]",
    requested: "[1]",
    index: 3,
    where: "super block",
    expected: "A",
    found: "B"
  }
  return new member(fields)
})

describe("the schema of SpdkError", () => {
  const codec = Schema.toCodecJson(SpdkError)

  it.each(everyReason.map((reason) => [reason._tag, reason] as const))(
    "takes %s through JSON and back",
    (tag, reason) => {
      const error = new SpdkError({ reason })
      const json: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error)))
      const back = Schema.decodeUnknownSync(codec)(json)
      assert.instanceOf(back, SpdkError)
      assert.strictEqual(back.reason._tag, tag)
      assert.strictEqual(back.message, error.message)
      assert.strictEqual(back.isRetryable, error.isRetryable)
      assert.deepStrictEqual(back.reason.nvme, { sct: 0, sc: 6, dnr: true })
      assert.strictEqual(back.reason.cause instanceof Error ? back.reason.cause.message : "", "from below")
    }
  )

  it("has 25 reasons with names of their own", () => {
    assert.strictEqual(new Set(everyReason.map(({ _tag }) => _tag)).size, 25)
  })

  it("refuses what is none", () => {
    for (const json of [{}, { _tag: "SpdkError" }, { _tag: "SpdkError", reason: { _tag: "Nope", operation: "x" } }]) {
      assert.isTrue(Exit.isFailure(Schema.decodeUnknownExit(codec)(json)))
    }
  })
})

/** Whether it may succeed later although nobody has changed anything. */
const retryable: Readonly<Record<Reason["_tag"], boolean>> = {
  Aborted: true,
  AlreadyExists: false,
  Busy: true,
  ConfigRejected: false,
  Corrupted: false,
  // Of an open handle: a device that comes back is another one.
  DeviceRemoved: false,
  EngineUnavailable: false,
  InvalidArgument: false,
  // By its errno and NVMe status, below.
  IoFailed: false,
  MethodNotFound: false,
  Miscompare: false,
  NoMemory: true,
  NoSpace: false,
  NotFound: false,
  NotSupported: false,
  OptionsClash: false,
  PermissionDenied: false,
  ReadOnly: false,
  Released: false,
  RpcFailed: false,
  RpcProtocol: false,
  RpcUnreachable: true,
  StartFailed: false,
  TimedOut: true,
  WrongType: false
}

describe("isRetryable", () => {
  const members = Reason.members
  it("is said of every reason", () => {
    assert.sameMembers(
      members.map(({ fields }) => fields._tag.schema.literal),
      Object.keys(retryable)
    )
  })
  it.each(members.map((one) => [one.fields._tag.schema.literal, one] as const))("of %s", (tag, { prototype }) => {
    assert.strictEqual(Reflect.get(prototype, "isRetryable", {}), retryable[tag])
  })
})

describe("fromErrno", () => {
  const cases: ReadonlyArray<readonly [number, ErrnoReason["_tag"], boolean]> = [
    [-1, "PermissionDenied", false],
    [-2, "NotFound", false],
    [-5, "IoFailed", false],
    [-9, "Released", false],
    [-11, "Busy", true],
    [-12, "NoMemory", true],
    [-13, "PermissionDenied", false],
    [-16, "Busy", true],
    [-17, "AlreadyExists", false],
    [-19, "NotFound", false],
    [-22, "InvalidArgument", false],
    [-28, "NoSpace", false],
    [-30, "ReadOnly", false],
    [-34, "InvalidArgument", false],
    [-38, "NotSupported", false],
    [-95, "NotSupported", false],
    [-105, "NoMemory", true],
    [-108, "DeviceRemoved", false],
    [-110, "TimedOut", true],
    [-125, "Aborted", true],
    [-99_999, "IoFailed", false],
    [-5, "IoFailed", false],
    [-32, "IoFailed", true],
    [-100, "IoFailed", true],
    [-101, "IoFailed", true],
    [-103, "IoFailed", true],
    [-104, "IoFailed", true],
    [-107, "IoFailed", true],
    [-111, "IoFailed", true],
    [-112, "IoFailed", true],
    [-113, "IoFailed", true]
  ]
  it.each(cases)("makes of %i %s", (errno, tag, isRetryable) => {
    const { reason } = fromErrno(errno, context)
    assert.strictEqual(reason._tag, tag)
    assert.strictEqual(reason.errnoCode, -errno)
    assert.strictEqual(reason.isRetryable, isRetryable)
    assert.strictEqual(reason.operation, "Bdev.write")
    assert.strictEqual(reason.resource, "disk0")
  })

  it("names the errno, those of Linux wherever the client runs", () => {
    assert.strictEqual(fromErrno(-110, context).reason.errno, "ETIMEDOUT")
    assert.strictEqual(fromErrno(-133, context).reason.errno, "EHWPOISON")
    assert.strictEqual(fromErrno(-99_999, context).reason.errno, "errno 99999")
  })
})

describe("fromNvme", () => {
  const cases: ReadonlyArray<readonly [sct: number, sc: number, tag: Reason["_tag"], isRetryable: boolean]> = [
    [0, 0x01, "NotSupported", false],
    [0, 0x02, "InvalidArgument", false],
    [0, 0x04, "IoFailed", true],
    [0, 0x06, "IoFailed", false],
    [0, 0x07, "Aborted", true],
    [0, 0x08, "Aborted", true],
    [0, 0x20, "ReadOnly", false],
    [0, 0x22, "IoFailed", true],
    [0, 0x80, "InvalidArgument", false],
    [0, 0x81, "NoSpace", false],
    [0, 0x82, "IoFailed", true],
    [2, 0x81, "IoFailed", false],
    [2, 0x85, "Miscompare", false],
    [2, 0x86, "PermissionDenied", false],
    [3, 0x00, "IoFailed", true],
    [3, 0x71, "Aborted", true]
  ]
  it.each(cases)("makes of %i/%i %s", (sct, sc, tag, isRetryable) => {
    const { reason } = fromNvme(sct, sc, false, context)
    assert.strictEqual(reason._tag, tag)
    assert.strictEqual(reason.isRetryable, isRetryable)
    assert.deepStrictEqual(reason.nvme, { sct, sc, dnr: false })
    assert.isFalse(fromNvme(sct, sc, true, context).isRetryable, "the device said do not retry")
  })
})

describe("fromCompletion", () => {
  it.each([
    [1, "InvalidArgument"],
    [2, "Released"],
    [3, "Released"],
    [4, "InvalidArgument"],
    [5, "InvalidArgument"],
    [6, "InvalidArgument"],
    [7, "ReadOnly"],
    [8, "NotSupported"],
    [9, "DeviceRemoved"],
    [10, "InvalidArgument"],
    [11, "NotFound"],
    [12, "Released"],
    [13, "InvalidArgument"]
  ] as const)("makes of detail %i %s", (detail, tag) => {
    assert.strictEqual(fromCompletion(-22, detail, 0, context).reason._tag, tag)
  })

  it("believes the NVMe word over the errno", () => {
    const { reason } = fromCompletion(-5, 0, 0x10000 | 0x20000 | (2 << 8) | 0x85, context)
    assert.strictEqual(reason._tag, "Miscompare")
    assert.deepStrictEqual(reason.nvme, { sct: 2, sc: 0x85, dnr: true })
  })

  it("takes a device that is not there any more for removed", () => {
    assert.strictEqual(fromCompletion(-19, 0, 0, context).reason._tag, "DeviceRemoved")
    assert.strictEqual(fromCompletion(-6, 0, 0, context).reason._tag, "DeviceRemoved")
    assert.strictEqual(fromCompletion(-12, 0, 0, context).reason._tag, "NoMemory")
  })
})

describe("fromRpcCode", () => {
  it.each([
    [-32_601, "Method not found", "MethodNotFound"],
    [-32_602, "Invalid parameters", "InvalidArgument"],
    [-32_603, "spdk_json_decode_object failed", "InvalidArgument"],
    [-32_603, "something else", "RpcFailed"],
    [-32_700, "spdk_json_decode_object failed", "InvalidArgument"],
    [-32_602, "Invalid argument", "InvalidArgument"],
    [-32_603, "Invalid argument", "InvalidArgument"],
    [-32_602, "Input/output error", "RpcFailed"],
    [-32_602, "No such device", "NotFound"],
    [-32_602, "No space left on device", "NoSpace"],
    [-32_602, "Device or resource busy", "Busy"],
    [-32_603, "Cannot allocate memory", "NoMemory"],
    [-32_602, "Operation not permitted", "PermissionDenied"],
    [-32_602, "Failed to create 2 split bdevs from 'a: b': File exists", "AlreadyExists"],
    [-32_602, "Could not add auth group (1), File exists", "AlreadyExists"],
    [-32_602, "Failed to configure rate limit: Operation not supported", "NotSupported"],
    [-32_602, "The requested bdev does not exist.", "NotFound"],
    [-32_602, "lvs does not exist", "NotFound"],
    [-32_603, "Unable to find a target.", "NotFound"],
    [-32_602, "Unable to find subsystem with NQN nqn.2016-06.io.spdk:x", "NotFound"],
    [-32_602, "Target already exists.", "AlreadyExists"],
    [-32_603, "Transport type 'TCP' already exists", "AlreadyExists"],
    [-32_603, "Subsystem is already being destroyed.", "Busy"],
    [-32_603, "Subsystem currently in another state change try again later.", "Busy"],
    [-32_603, "Out of memory", "NoMemory"],
    [-32_603, "Memory allocation error", "NoMemory"],
    [-32_602, "Not enough memory to process request", "NoMemory"],
    [-32_603, "Timeout reached during host removal", "TimedOut"],
    [-32_603, "Unable to create URING bdev.", "RpcFailed"],
    [-17, "File exists", "AlreadyExists"],
    [-19, "No such device", "NotFound"],
    [-16, "Device or resource busy", "Busy"],
    [-12, "Cannot allocate memory", "NoMemory"],
    [-22, "Invalid argument", "InvalidArgument"],
    [-1, "Operation not permitted", "PermissionDenied"],
    [-1, "Method may only be called before framework is initialized", "RpcFailed"],
    [-5, "Input/output error", "RpcFailed"],
    [7, "positive", "RpcFailed"]
  ] as const)("makes of %i %s %s", (code, message, tag) => {
    const { reason } = fromRpcCode("some_method", code, message)
    assert.strictEqual(reason._tag, tag)
    assert.strictEqual(reason.rpcCode, code)
    assert.strictEqual(reason.operation, "some_method")
  })
})

describe("messages of reasons with fields of their own", () => {
  it.each([
    [new TimedOut({ operation: "x", limitMillis: 250 }), "x: TimedOut: no answer within 250 ms"],
    [new Released({ operation: "x", what: "buffer" }), "x: Released: the buffer has already been released"],
    [
      new RpcUnreachable({ operation: "x", address: "unix:/a", errno: "ENOENT" }),
      "x: RpcUnreachable: cannot reach the RPC server at unix:/a (ENOENT)"
    ],
    [new RpcProtocol({ operation: "x", rule: "sent garbage" }), "x: RpcProtocol: sent garbage"],
    [new RpcFailed({ operation: "x", method: "x", code: -5, rpcMessage: "I/O" }), "x: RpcFailed: I/O, code -5"],
    [
      new EngineUnavailable({ operation: "Spdk.layer", engine: "libspdk", lookedFor: ["spdk.node"] }),
      "Spdk.layer: EngineUnavailable: the engine libspdk is not available; looked for spdk.node"
    ],
    [
      new OptionsClash({ operation: "x", option: "cores", running: "[0]", requested: "[1]" }),
      "x: OptionsClash: SPDK already runs in this process with cores [0], which cannot become [1]"
    ],
    [new StartFailed({ operation: "x", detail: "no core" }), "x: StartFailed: no core"],
    [
      new ConfigRejected({ operation: "x", method: "bdev_malloc_create", index: 2, code: -22 }),
      "x: ConfigRejected: SPDK refused call 2 of the configuration, bdev_malloc_create, with code -22"
    ],
    [
      new InvalidArgument({ operation: "x", field: "name", rule: "is empty", value: "" }),
      `x: InvalidArgument: name "" is empty`
    ]
  ])("%#", (reason, message) => {
    assert.strictEqual(reason.message, message)
  })
})

describe("narrowing", () => {
  it.effect("Effect.catchReason hands over the one reason", () =>
    Effect.gen(function* () {
      const caught = twoReasons(noMemory).pipe(
        Effect.catchReason("SpdkError", "NoMemory", (reason) => {
          expectTypeOf(reason).toEqualTypeOf<NoMemory>()
          return Effect.succeed(reason._tag)
        })
      )
      assert.strictEqual(yield* caught, "NoMemory")
      const other = yield* twoReasons(released).pipe(
        Effect.catchReason("SpdkError", "NoMemory", () => Effect.succeed("")),
        Effect.flip
      )
      assert.strictEqual(other.reason._tag, "Released")
    })
  )

  it.effect("Effect.catchReason with a handler for the rest leaves nothing", () =>
    Effect.gen(function* () {
      const caught = twoReasons(released).pipe(
        Effect.catchReason(
          "SpdkError",
          "NoMemory",
          () => Effect.succeed("memory"),
          (rest) => {
            expectTypeOf(rest).toEqualTypeOf<Released>()
            return Effect.succeed(rest.what)
          }
        )
      )
      expectTypeOf<Effect.Error<typeof caught>>().toEqualTypeOf<never>()
      assert.strictEqual(yield* caught, "buffer")
    })
  )

  it.effect("Effect.catchReasons with all reasons leaves a rest that is never", () =>
    Effect.gen(function* () {
      const caught = twoReasons(released).pipe(
        Effect.catchReasons(
          "SpdkError",
          { NoMemory: () => Effect.succeed("memory"), Released: ({ what }) => Effect.succeed(what) },
          (rest) => {
            expectTypeOf(rest).toEqualTypeOf<never>()
            return Effect.die(rest)
          }
        )
      )
      expectTypeOf<Effect.Error<typeof caught>>().toEqualTypeOf<never>()
      assert.strictEqual(yield* caught, "buffer")
    })
  )

  it.effect("Effect.unwrapReason puts the reasons themselves into the error channel", () =>
    Effect.gen(function* () {
      const unwrapped = Effect.unwrapReason(twoReasons(noMemory), "SpdkError")
      expectTypeOf<Effect.Error<typeof unwrapped>>().toEqualTypeOf<NoMemory | Released>()
      const handled = Effect.catchTags(unwrapped, {
        NoMemory: () => Effect.succeed("memory"),
        Released: () => Effect.succeed("released")
      })
      expectTypeOf<Effect.Error<typeof handled>>().toEqualTypeOf<never>()
      assert.strictEqual(yield* handled, "memory")
    })
  )

  it.effect("handleReasons takes what it handles out of the type", () =>
    Effect.gen(function* () {
      const some = twoReasons(noMemory).pipe(handleReasons({ NoMemory: (reason) => Effect.succeed(reason.errno) }))
      expectTypeOf<Effect.Error<typeof some>>().toEqualTypeOf<SpdkError<Released>>()
      expectTypeOf<Effect.Success<typeof some>>().toEqualTypeOf<string | undefined>()
      assert.isUndefined(yield* Effect.orDie(some))

      const all = twoReasons(released).pipe(
        handleReasons({ NoMemory: () => Effect.succeed(1), Released: ({ what }) => Effect.fail(new RangeError(what)) })
      )
      expectTypeOf<Effect.Error<typeof all>>().toEqualTypeOf<RangeError>()
      assert.strictEqual((yield* Effect.flip(all)).message, "buffer")

      const first = handleReasons(twoReasons(released), { NoMemory: () => Effect.succeed(1) })
      assert.strictEqual((yield* Effect.flip(first)).reason.what, "buffer")
    })
  )

  it.effect("handleReasons leaves other errors and defects alone", () =>
    Effect.gen(function* () {
      const other: Effect.Effect<never, SpdkError<NoMemory> | RangeError> = Effect.fail(new RangeError("other"))
      const handled = other.pipe(handleReasons({ NoMemory: () => Effect.succeed(1) }))
      expectTypeOf<Effect.Error<typeof handled>>().toEqualTypeOf<RangeError>()
      assert.strictEqual((yield* Effect.flip(handled)).message, "other")
      const died = yield* Effect.exit(
        handleReasons(Effect.andThen(Effect.die("defect"), twoReasons(noMemory)), { NoMemory: () => Effect.succeed(1) })
      )
      assert.isTrue(Exit.hasDies(died))
    })
  )

  it("infers its reason, and an operation of fewer reasons is one of more", () => {
    expectTypeOf(new SpdkError({ reason: noMemory })).toEqualTypeOf<SpdkError<NoMemory>>()
    expectTypeOf(invalid("a", "b", "c")).toEqualTypeOf<SpdkError<InvalidArgument>>()
    expectTypeOf(failInvalid("a", "b", "c")).toEqualTypeOf<Effect.Effect<never, SpdkError<InvalidArgument>>>()
    expectTypeOf<SpdkErrorOf<"Busy" | "AlreadyExists">>().toEqualTypeOf<SpdkError<Busy | AlreadyExists>>()
    expectTypeOf<SpdkError<NoMemory>>().toExtend<SpdkError<NoMemory | Released>>()
    expectTypeOf<SpdkError<NoMemory>>().toExtend<SpdkError>()
    expectTypeOf<SpdkError>().not.toExtend<SpdkError<NoMemory>>()
    expectTypeOf<SpdkError<NoMemory | Released>>().not.toExtend<SpdkError<NoMemory>>()
  })

  it.effect("is yieldable, and keeps its reason", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        return yield* new SpdkError({ reason: released })
      })
      expectTypeOf<Effect.Error<typeof program>>().toEqualTypeOf<SpdkError<Released>>()
      assert.strictEqual((yield* Effect.flip(program)).reason.what, "buffer")
    })
  )
})
