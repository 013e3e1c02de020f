/**
 * RPC methods that every configuration of SPDK has, and that set the size or the place of what this engine does not have. They
 * are accepted where no result depends on them, and refused by name where one does.
 */
import * as Effect from "effect/Effect"
import type { RpcMethods } from "../../../generated/RpcMethods.ts"
import type { BdevRegistry } from "../bdev/registry.ts"
import { type MethodAnswer, invalidParams, type RpcFault, type RpcTable, trueOrErrno } from "./table.ts"

const notHere = (name: string, value: unknown): RpcFault =>
  invalidParams(`${name}: the embedded engine cannot be set to ${JSON.stringify(value)}`)

type Settings =
  | "iobuf_set_options"
  | "sock_set_default_impl"
  | "sock_impl_set_options"
  | "accel_set_options"
  | "bdev_raid_set_options"
  | "bdev_nvme_set_hotplug"
  | "framework_set_scheduler"
  | "fsdev_set_opts"
  | "iscsi_set_options"

/** Node's sockets are plain ones. */
const plainSockets: ReadonlySet<string> = new Set(["posix", "uring"])

export const addSettings = (table: RpcTable, { withoutEffect }: BdevRegistry): void => {
  type Add = "add" | "addStartup" | "addAnytime"
  const accept = <N extends Settings>(
    how: Add,
    name: N,
    fault: (params: RpcMethods[N]) => RpcFault | undefined = () => undefined
  ): void =>
    table[how](
      name,
      (params) => {
        const refused = fault(params)
        if (refused !== undefined) return Effect.fail(refused)
        withoutEffect.note(name)
        // `rpcResults` has none of these methods: any JSON is an answer, which the compiler does not see for an open N.
        return trueOrErrno(0) as MethodAnswer<never>
      },
      { onInvalid: invalidParams() }
    )
  accept("addStartup", "iobuf_set_options")
  accept("addStartup", "sock_set_default_impl", ({ impl_name: impl }) =>
    plainSockets.has(impl) ? undefined : notHere("impl_name", impl)
  )
  accept("addStartup", "sock_impl_set_options", ({ impl_name: impl }) =>
    plainSockets.has(impl) || impl === "ssl" ? undefined : invalidParams()
  )
  accept("addStartup", "accel_set_options")
  accept("addAnytime", "bdev_raid_set_options")
  // Drives of this machine, which this engine never sees.
  accept("add", "bdev_nvme_set_hotplug", ({ enable }) => (enable ? notHere("enable", enable) : undefined))
  accept("addAnytime", "framework_set_scheduler", ({ name }) => (name === "static" ? undefined : notHere("name", name)))
  accept("add", "fsdev_set_opts")
  accept("addStartup", "iscsi_set_options")
}
