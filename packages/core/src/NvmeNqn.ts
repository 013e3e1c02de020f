/**
 * NVMe qualified names, which name subsystems and hosts: `nqn.2016-06.io.spdk:disk1`. The rules are those of the NVMe
 * Base specification, as SPDK checks them. Each refusal names the broken rule.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as nqns from "./internal/nvme/wire/nqn.ts"
import { invalid, type InvalidArgument, type SpdkError } from "./SpdkError.ts"

/**
 * An NVMe qualified name of at most 223 bytes. It has one of three forms:
 *
 * - `nqn.yyyy-mm.`, a reversed domain, `:` and a name in UTF-8. The date is one at which the owner of the name owned
 *   the domain.
 * - `nqn.2014-08.org.nvmexpress:uuid:` and a UUID.
 * - The discovery NQN.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Nqn = Schema.String.check(Schema.makeFilter((nqn: string) => nqns.nqnRule(nqn) ?? true))
export type Nqn = typeof Nqn.Type

/** The NQN of the well-known discovery subsystem. @since 0.1.0 @category constants */
export const discoveryNqn: string = nqns.discoveryNqn

/** @since 0.1.0 @category guards */
export const isNqn = (u: unknown): u is Nqn => nqns.nqnRule(u) === undefined

/** Checks a name. Returns the name, or the rule that it breaks. @since 0.1.0 @category conversions */
export const parse = (nqn: string): Result.Result<Nqn, SpdkError<InvalidArgument>> => {
  const rule = nqns.nqnRule(nqn)
  return rule === undefined ? Result.succeed(nqn) : Result.fail(invalid("NvmeNqn.parse", "nqn", rule, nqn))
}

/** The NQN of a host or subsystem that has a UUID and no domain. @since 0.1.0 @category constructors */
export const fromUuid = (uuid: string): Result.Result<Nqn, SpdkError<InvalidArgument>> =>
  nqns.nqnRule(nqns.nqnOfUuid(uuid)) === undefined
    ? Result.succeed(nqns.nqnOfUuid(uuid))
    : Result.fail(invalid("NvmeNqn.fromUuid", "uuid", "is not a UUID", uuid))
