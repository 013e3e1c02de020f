/**
 * Calls that want a bdev which somebody has claimed. SPDK says "Operation not permitted", "Invalid parameters" or "Internal error",
 * by method, and some of its modules keep the wish in mind and make their bdev later: so most are refused before they are sent.
 */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { Busy, type RpcReason, SpdkError } from "../../SpdkError.ts"

/** Who has claimed a bdev, in words; undefined when nobody has, or it cannot be known. */
export type ClaimOf = (bdev: string) => Effect.Effect<string | undefined>

/** Whether somebody has a bdev, which nobody has claimed, open for writing. */
export type HasWriter = (bdev: string) => Effect.Effect<boolean>

type Params = { readonly [name: string]: unknown }

/** By method, the bdevs that it needs for itself. */
const wantedBy: { readonly [method: string]: (params: Params) => ReadonlyArray<unknown> } = {
  bdev_passthru_create: (params) => [params["base_bdev_name"]],
  bdev_delay_create: (params) => [params["base_bdev_name"]],
  bdev_crypto_create: (params) => [params["base_bdev_name"]],
  bdev_compress_create: (params) => [params["base_bdev_name"]],
  bdev_error_create: (params) => [params["base_name"]],
  bdev_split_create: (params) => [params["base_bdev"]],
  bdev_zone_block_create: (params) => [params["base_bdev"]],
  bdev_ftl_create: (params) => [params["base_bdev"], params["cache"]],
  bdev_raid_create: ({ base_bdevs: bases }) => (Array.isArray(bases) ? bases : []),
  bdev_raid_add_base_bdev: (params) => [params["base_bdev"]],
  bdev_lvol_create_lvstore: (params) => [params["bdev_name"]],
  nvmf_subsystem_add_ns: ({ namespace }) =>
    typeof namespace === "object" && namespace !== null ? [Reflect.get(namespace, "bdev_name")] : []
}

/** What the module itself says better of a base that it has already: `AlreadyExists`. */
const ownClaims: { readonly [method: string]: string } = {
  bdev_split_create: "claimed by module split ",
  bdev_error_create: "claimed by module error "
}

/** That a bdev is exported already, or a namespace's id is taken, is SPDK's to find first. */
const onlyAfterwards: ReadonlySet<string> = new Set(["nvmf_subsystem_add_ns"])

/** These write first and claim then: with a writer beside them, what was on the bdev is lost, and the bdev is never let go of. */
const needsNoWriter: ReadonlySet<string> = new Set(["bdev_lvol_create_lvstore"])

/** What SPDK's answer to a claimed bdev becomes. */
const refusals: ReadonlySet<string> = new Set(["InvalidArgument", "IoFailed", "PermissionDenied", "RpcFailed"])

/** `by` is what `ClaimOf` says, or `claim_type` of `bdev_get_bdevs` where there is no such function. */
export const claimedBusy = (operation: string, resource: string, by: string | undefined): SpdkError<Busy> => {
  const detail = by ?? "another bdev or module has claimed it"
  return new SpdkError({ reason: new Busy({ operation, resource, detail, errno: "EPERM", errnoCode: 1 }) })
}

export const byType = (claimType: string | undefined): string =>
  `another bdev or module has claimed it${claimType === undefined ? "" : ` (${claimType})`}`

const claimTypeOf = (answer: Schema.Json): { readonly claimed: boolean; readonly type: string | undefined } => {
  const bdev: unknown = Array.isArray(answer) ? answer[0] : undefined
  if (typeof bdev !== "object" || bdev === null || Reflect.get(bdev, "claimed") !== true) {
    return { claimed: false, type: undefined }
  }
  const type: unknown = Reflect.get(bdev, "claim_type")
  return { claimed: true, type: typeof type === "string" ? type : undefined }
}

type Ask = (method: string, params?: Params) => Effect.Effect<Schema.Json, SpdkError<RpcReason>>

/** Fails with `Busy`, naming the claimer, when a bdev that `call` needs is claimed. */
export const refuseClaimed = <A>(
  method: string,
  params: Params | undefined,
  ask: Ask,
  claimOf: ClaimOf | undefined,
  hasWriter: HasWriter | undefined,
  call: Effect.Effect<A, SpdkError<RpcReason>>
): Effect.Effect<A, SpdkError<RpcReason>> => {
  const wanted = Object.hasOwn(wantedBy, method) ? wantedBy[method] : undefined
  if (wanted === undefined) return call
  const names = wanted(params ?? {}).filter((name): name is string => typeof name === "string" && name !== "")
  const claimed = Effect.forEach(
    names,
    (name) =>
      // Whatever else is wrong, the call itself finds.
      Effect.flatMap(Effect.option(ask("bdev_get_bdevs", { name })), (answer) => {
        const found = answer._tag === "Some" ? claimTypeOf(answer.value) : { claimed: false, type: undefined }
        if (!found.claimed) {
          if (answer._tag === "None" || !needsNoWriter.has(method) || hasWriter === undefined) return Effect.void
          return Effect.flatMap(hasWriter(name), (has) =>
            has ? Effect.fail(claimedBusy(method, name, "open for writing")) : Effect.void
          )
        }
        const by = claimOf === undefined ? Effect.succeed(undefined) : claimOf(name)
        const own = ownClaims[method]
        return Effect.flatMap(by, (text) =>
          own !== undefined && text?.startsWith(own) === true
            ? Effect.void
            : Effect.fail(claimedBusy(method, name, text ?? byType(found.type)))
        )
      }),
    { discard: true }
  )
  const explained = Effect.catch(call, (error) =>
    refusals.has(error.reason._tag) ? Effect.andThen(claimed, Effect.fail(error)) : Effect.fail(error)
  )
  return onlyAfterwards.has(method) ? explained : Effect.andThen(claimed, explained)
}
