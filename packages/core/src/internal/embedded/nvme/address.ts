/**
 * Where a transport id leads to, or why the embedded engine cannot go there.
 */
import * as Effect from "effect/Effect"
import * as net from "node:net"
import { invalid, NotSupported, SpdkError } from "../../../SpdkError.ts"
import type { NvmeConnectSettings, NvmeTransportIdFields } from "../../engine/nvme.ts"
import type { LinkAddress } from "./link.ts"

const unsupported = (operation: string, detail: string): Effect.Effect<never, SpdkError> =>
  Effect.fail(new SpdkError({ reason: new NotSupported({ operation, detail }) }))

const portOf = (text: string): number | undefined => {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  return port >= 1 && port <= 65_535 ? port : undefined
}

export const addressOf = (
  operation: string,
  { adrfam, traddr, trsvcid, trtype }: NvmeTransportIdFields,
  settings: NvmeConnectSettings
): Effect.Effect<LinkAddress, SpdkError> => {
  if (trtype !== "TCP") return unsupported(operation, `trtype ${trtype}: the embedded engine connects by TCP`)
  if (adrfam !== undefined && adrfam !== "IPv4" && adrfam !== "IPv6") {
    return unsupported(operation, `adrfam ${adrfam}: TCP has IPv4 and IPv6`)
  }
  for (const field of ["psk", "dhchapKey", "dhchapControllerKey"] as const) {
    if (settings[field] !== undefined) {
      return unsupported(operation, `${field}: the embedded engine has no secure channels and no authentication`)
    }
  }
  const family = adrfam === "IPv6" ? 6 : adrfam === "IPv4" ? 4 : 0
  const literal = net.isIP(traddr)
  if (traddr === "") return Effect.fail(invalid(operation, "traddr", "is empty", traddr))
  if (literal !== 0 && family !== 0 && literal !== family) {
    return Effect.fail(invalid(operation, "traddr", `is no address of ${adrfam}`, traddr))
  }
  const port = portOf(trsvcid)
  if (port === undefined) return Effect.fail(invalid(operation, "trsvcid", "is no port from 1 to 65535", trsvcid))
  const { sourceAddress, sourcePort } = settings
  if (sourceAddress !== "" && net.isIP(sourceAddress) === 0) {
    return Effect.fail(invalid(operation, "sourceAddress", "is no IP address", sourceAddress))
  }
  const localPort = sourcePort === "" ? 0 : portOf(sourcePort)
  if (localPort === undefined) {
    return Effect.fail(invalid(operation, "sourcePort", "is no port from 1 to 65535", sourcePort))
  }
  return Effect.succeed({ host: traddr, port, family, localAddress: sourceAddress, localPort })
}
