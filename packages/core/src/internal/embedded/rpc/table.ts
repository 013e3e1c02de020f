/**
 * The RPC methods of the embedded engine: names, parameters and answers are SPDK's. A socket and the in-process
 * client both come here, with what JSON.parse made of a request.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { type RpcMethods, rpcMethods } from "../../../generated/RpcMethods.ts"
import type { rpcResults } from "../../../RpcResults.ts"
import type { Json } from "../bdev/bdev.ts"
import { strerror } from "../queue/status.ts"

/** An error answer. SPDK's codes are JSON-RPC's own, or negative errno numbers. */
export class RpcFault {
  readonly _tag = "RpcFault"
  readonly code: number
  readonly message: string

  constructor(code: number, message: string) {
    this.code = code
    this.message = message
  }
}

export const invalidRequest = new RpcFault(-32600, "Invalid request")
export const methodNotFound = new RpcFault(-32601, "Method not found")
export const invalidParams = (message = "Invalid parameters"): RpcFault => new RpcFault(-32602, message)
/** What most methods answer to parameters that they cannot decode. */
export const decodeFailed = new RpcFault(-32603, "spdk_json_decode_object failed")
export const errnoFault = (errnoNegative: number): RpcFault => new RpcFault(errnoNegative, strerror(-errnoNegative))

const tooEarly = new RpcFault(
  -1,
  "Method may only be called after framework is initialized using framework_start_init RPC."
)
const tooLate = new RpcFault(
  -1,
  "Method may only be called before framework is initialized. Use --wait-for-rpc command line parameter and then " +
    "issue this RPC before the framework_start_init RPC."
)

/** Any answer. */
export type MethodAnswer<A = Json> = Effect.Effect<A, RpcFault>
/** What a method answers: by the Schema of its result where `rpcResults` has one, and any JSON otherwise. */
export type AnswerOf<Name extends keyof RpcMethods> = MethodAnswer<
  Name extends keyof typeof rpcResults ? (typeof rpcResults)[Name]["Encoded"] : Json
>
type Handler = (params: unknown) => MethodAnswer<unknown>
type Name = keyof RpcMethods

export interface MethodOptions {
  /** The answer to parameters that the Schema does not take. */
  readonly onInvalid?: RpcFault
  /** The method may be called without parameters. */
  readonly isOptional?: boolean
}

export class RpcTable {
  private readonly handlers = new Map<string, Handler>()
  private readonly startupOnly = new Set<string>()
  private readonly always = new Set<string>()
  private isStarted = true

  /** A method whose parameters the generated Schema describes. */
  add<N extends Name>(name: N, run: (params: RpcMethods[N]) => AnswerOf<N>, options: MethodOptions = {}): void {
    let decode: ((params: unknown) => Exit.Exit<RpcMethods[N], Schema.SchemaError>) | undefined
    this.handlers.set(name, (params) => {
      // Without parameters at all, SPDK's decoder fails even when each of them is optional.
      if (params === undefined && options.isOptional !== true) return Effect.fail(options.onInvalid ?? decodeFailed)
      decode ??= Schema.decodeUnknownExit(rpcMethods[name](), { onExcessProperty: "error" })
      const decoded = isPlain(params ?? {}) ? decode(params ?? {}) : undefined
      return decoded !== undefined && Exit.isSuccess(decoded)
        ? run(decoded.value)
        : Effect.fail(options.onInvalid ?? decodeFailed)
    })
  }

  /** A method that takes no parameters, not even an empty object; `complaint` is SPDK's to those who send some. */
  addBare<N extends Name>(name: N, complaint: string, run: () => AnswerOf<N>): void {
    this.handlers.set(name, (params) => (params === undefined ? run() : Effect.fail(invalidParams(complaint))))
  }

  /** A method that does not look at its parameters. */
  addBlind<N extends Name>(name: N, run: () => AnswerOf<N>): void {
    this.handlers.set(name, run)
  }

  /** As `add`, for a method that is only allowed before the framework starts. */
  addStartup<N extends Name>(name: N, run: (params: RpcMethods[N]) => AnswerOf<N>, options: MethodOptions = {}): void {
    this.add(name, run, options)
    this.startupOnly.add(name)
  }

  /** As `add`, for a method that is allowed before the framework starts as after it. */
  addAnytime<N extends Name>(name: N, run: (params: RpcMethods[N]) => AnswerOf<N>, options: MethodOptions = {}): void {
    this.add(name, run, options)
    this.always.add(name)
  }

  /** Waits for `framework_start_init`, as SPDK does when a configuration is still to come. */
  holdStart(): void {
    this.isStarted = false
  }

  start(): void {
    this.isStarted = true
  }

  names(current: boolean): ReadonlyArray<string> {
    return [...this.handlers.keys()].filter((name) => !current || this.isAllowed(name))
  }

  call(method: string, params: unknown): MethodAnswer<unknown> {
    const handler = this.handlers.get(method)
    if (handler === undefined) return Effect.fail(methodNotFound)
    return Effect.suspend(() =>
      this.isAllowed(method) ? handler(params) : Effect.fail(this.isStarted ? tooLate : tooEarly)
    )
  }

  private isAllowed(name: string): boolean {
    return anytime.has(name) || this.always.has(name) || this.startupOnly.has(name) !== this.isStarted
  }
}

/** What SPDK registers for both, the time before the framework starts and the time after. */
const anytime: ReadonlySet<string> = new Set([
  "rpc_get_methods",
  "spdk_get_version",
  "framework_wait_init",
  "framework_get_scheduler",
  "log_set_level",
  "log_get_level",
  "log_set_print_level",
  "log_get_print_level"
])

/** An object, with nothing in it that a C string cannot hold. */
const isPlain = (params: unknown): boolean =>
  typeof params === "object" && params !== null && !Array.isArray(params) && !hasNul(params)

const hasNul = (value: unknown): boolean => {
  if (typeof value === "string") return value.includes("\0")
  return typeof value === "object" && value !== null && Object.values(value).some(hasNul)
}

/** The answer of a function that returns a negative errno or what it made. */
export const orErrno = <A, B>(made: A | number, answer: (made: A) => B): MethodAnswer<B> =>
  typeof made === "number" ? Effect.fail(errnoFault(made)) : Effect.succeed(answer(made))

/** The name for 0. */
export const nameOrErrno = (errno: number, name: string): MethodAnswer<string> =>
  errno === 0 ? Effect.succeed(name) : Effect.fail(errnoFault(errno))

/** true for 0. */
export const trueOrErrno = (errno: number): MethodAnswer<boolean> =>
  errno === 0 ? Effect.succeed(true) : Effect.fail(errnoFault(errno))

/** The answer of something that is removed: true once it is gone. */
export const whenGone = (remove: (onDone: (errno: number) => void) => number): MethodAnswer<boolean> =>
  Effect.callback((resume) => {
    const errno = remove((errno) => resume(trueOrErrno(errno)))
    if (errno !== 0) resume(trueOrErrno(errno))
  })
