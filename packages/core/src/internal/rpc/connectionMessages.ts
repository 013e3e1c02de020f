/**
 * JSON-RPC 2.0 as SPDK speaks it: the text of a request, and the meaning of an answer.
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import { type InvalidArgument, invalid, type SpdkError } from "../../SpdkError.ts"
import { textRule } from "../common/names.ts"

/** What a server answered. `error` is for the caller of `id`. */
export type RpcAnswer =
  | { readonly _tag: "Result"; readonly id: number; readonly result: Schema.Json }
  | {
      readonly _tag: "Error"
      readonly id: number
      readonly code: number
      readonly message: string
      readonly data: Schema.Json | undefined
    }
  /** Breaks the protocol; says how. */
  | { readonly _tag: "Broken"; readonly rule: string }

const broken = (rule: string): RpcAnswer => ({ _tag: "Broken", rule })

/** `message` comes from `JSON.parse`. */
export const decodeAnswer = (message: unknown): RpcAnswer => {
  if (!Predicate.isObject(message)) return broken("sent a message that is not an object")
  if (!("jsonrpc" in message) || message.jsonrpc !== "2.0") {
    return broken(`sent a message whose "jsonrpc" is not "2.0"`)
  }
  const error = readError("error" in message ? message.error : undefined)
  const id = "id" in message ? message.id : undefined
  if (typeof id !== "number" || !Number.isSafeInteger(id)) {
    return error === undefined
      ? broken("sent a message without the id of a request")
      : broken(`answered no request in particular: ${error.message}, code ${error.code}`)
  }
  if ("error" in message && "result" in message) return broken("sent an answer with both result and error")
  if (error !== undefined) return { _tag: "Error", id, ...error }
  if ("error" in message) return broken("sent an error without code and message")
  if (!("result" in message)) return broken("sent an answer with neither result nor error")
  // What JSON.parse makes is Json.
  return { _tag: "Result", id, result: message.result as Schema.Json }
}

const readError = (error: unknown) => {
  if (!Predicate.isObject(error)) return undefined
  const code = "code" in error ? error.code : undefined
  const message = "message" in error ? error.message : undefined
  if (typeof code !== "number" || typeof message !== "string") return undefined
  // What JSON.parse makes is Json.
  return { code, message, data: "data" in error ? (error.data as Schema.Json) : undefined }
}

/**
 * The parameters of a request as text, undefined when the request has none. Parameters that are undefined are left
 * out, and an empty object is none: SPDK refuses it for methods without parameters. A bigint becomes a JSON number
 * with all of its digits.
 */
export const encodeParams = (
  method: string,
  params: { readonly [name: string]: unknown } | undefined
): Result.Result<EncodedParams, SpdkError<InvalidArgument>> => {
  const methodRule = textRule(method)
  if (methodRule !== undefined) return Result.fail(invalid("Rpc.call", "method", methodRule, method))
  if (params === undefined) return Result.succeed(noParams)
  const problem: Problem = { path: [], rule: undefined, value: undefined, values: envelopeValues }
  const text = write(params, problem, new Set())
  if (problem.rule !== undefined) {
    return Result.fail(invalid(method, problem.path.join("."), problem.rule, problem.value))
  }
  return Result.succeed(text === "{}" ? noParams : { text, values: problem.values })
}

export interface EncodedParams {
  readonly text: string | undefined
  /** As SPDK's parser counts them: names, values, and both ends of objects and arrays, the whole request included. */
  readonly values: number
}

/** `{"jsonrpc":"2.0","id":1,"method":"m","params":...}` */
const envelopeValues = 9
const noParams: EncodedParams = { text: undefined, values: envelopeValues - 1 }

/**
 * What a server takes in one request (lib/jsonrpc/jsonrpc_internal.h). SPDK closes the connection on more, and every call that
 * is in flight on it fails.
 */
export interface RequestLimits {
  readonly maxBytes: number
  readonly maxValues: number
}

/** SPDK_JSONRPC_RECV_BUF_SIZE and SPDK_JSONRPC_MAX_VALUES of 26.05, and of the releases before. */
export const currentLimits: RequestLimits = { maxBytes: 256 * 1024, maxValues: 8192 }
export const olderLimits: RequestLimits = { maxBytes: 32 * 1024, maxValues: 1024 }

/** The limits of the SPDK that gave this answer to `spdk_get_version`; undefined when it is none. */
export const limitsOfVersion = (version: unknown): RequestLimits | undefined => {
  const text = Predicate.hasProperty(version, "version") ? version.version : undefined
  const [, major, minor] = (typeof text === "string" ? /^SPDK v(\d+)\.(\d+)/.exec(text) : null) ?? []
  if (major === undefined) return undefined
  return Number(major) * 100 + Number(minor) >= 2605 ? currentLimits : olderLimits
}

/** Why a request is too large to be sent. */
export const exceeds = (
  method: string,
  { text, values }: EncodedParams,
  limits: RequestLimits
): SpdkError<InvalidArgument> | undefined => {
  if (values > limits.maxValues) {
    return invalid(method, "params", `have ${values} JSON values, and SPDK reads at most ${limits.maxValues}`)
  }
  const lengthBytes = Buffer.byteLength(encodeRequest(Number.MAX_SAFE_INTEGER, method, text))
  return lengthBytes <= limits.maxBytes
    ? undefined
    : invalid(method, "params", `make a request of ${lengthBytes} bytes, and SPDK reads at most ${limits.maxBytes}`)
}

export const encodeRequest = (id: number, method: string, paramsText: string | undefined): string => {
  const tail = paramsText === undefined ? "" : `,"params":${paramsText}`
  return `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)}${tail}}`
}

interface Problem {
  path: Array<string>
  rule: string | undefined
  value: unknown
  values: number
}

const refuse = (problem: Problem, rule: string, value: unknown): "null" => {
  if (problem.rule === undefined) {
    problem.rule = rule
    problem.value = value
  }
  return "null"
}

const write = (value: unknown, problem: Problem, above: Set<object>): string => {
  problem.values++
  switch (typeof value) {
    case "string": {
      const rule = textRule(value)
      return rule === undefined ? JSON.stringify(value) : refuse(problem, rule, value)
    }
    case "boolean":
    case "bigint":
      return `${value}`
    case "number":
      return Number.isFinite(value) ? `${value}` : refuse(problem, "is not a finite number", value)
    case "object":
      return value === null ? "null" : writeObject(value, problem, above)
    default:
      return refuse(problem, `is a ${typeof value}, which JSON does not have`, undefined)
  }
}

const writeObject = (value: object, problem: Problem, above: Set<object>): string => {
  if (above.has(value)) return refuse(problem, "contains itself", undefined)
  if (above.size >= 64) return refuse(problem, "nests deeper than the 64 levels that SPDK reads", undefined)
  above.add(value)
  // The end.
  problem.values++
  const at = (key: string, element: unknown): string => {
    if (problem.rule !== undefined) return "null"
    problem.path.push(key)
    const text = write(element, problem, above)
    if (problem.rule === undefined) problem.path.pop()
    return text
  }
  const text = Array.isArray(value)
    ? `[${value.map((element: unknown, index) => at(`${index}`, element)).join(",")}]`
    : `{${Object.entries(value)
        .filter(([, element]) => element !== undefined)
        .map(([key, element]) => {
          problem.values++
          const rule = textRule(key)
          if (rule !== undefined) refuse(problem, `has a name that ${rule}`, key)
          return `${JSON.stringify(key)}:${at(key, element)}`
        })
        .join(",")}}`
  above.delete(value)
  return text
}
