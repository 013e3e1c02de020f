/**
 * What is wrong with unchecked data, as an error that names the place.
 */
import * as SchemaIssue from "effect/SchemaIssue"
import { type InvalidArgument, invalid, RpcProtocol, SpdkError } from "../../SpdkError.ts"

const format = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) =>
    issue._tag === "UnexpectedKey" ? "nothing of that name is expected" : SchemaIssue.defaultLeafHook(issue)
})

/** A caller's data: the first thing that is wrong. `root` is the name of the whole, or empty. */
export const invalidFromIssue = (
  operation: string,
  root: string,
  issue: SchemaIssue.Issue,
  resource?: string
): SpdkError<InvalidArgument> => {
  const { message, path } = firstOf(root, issue)
  return invalid(operation, path === "" ? "params" : path, `is refused: ${message}`, undefined, resource)
}

/** A server's answer: the first thing that is wrong. */
export const protocolFromIssue = (
  method: string,
  issue: SchemaIssue.Issue,
  resource?: string
): SpdkError<RpcProtocol> => {
  const { message, path } = firstOf("result", issue)
  return new SpdkError({
    reason: new RpcProtocol({ operation: method, resource, rule: `${path} is not SPDK's: ${message}` })
  })
}

const firstOf = (root: string, issue: SchemaIssue.Issue) => {
  const first = format(issue).issues[0]
  const path = (first?.path ?? []).map((segment) => (typeof segment === "object" ? segment.key : segment))
  return { path: formatPath(root, path), message: first?.message ?? "Expected something else" }
}

const formatPath = (root: string, path: ReadonlyArray<PropertyKey>): string => {
  let text = root
  for (const key of path) {
    if (typeof key === "number" || /^\d+$/.test(String(key))) text += `[${String(key)}]`
    else text += text === "" ? String(key) : `.${String(key)}`
  }
  return text
}
