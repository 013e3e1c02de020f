/** The log of the SPDK that a client speaks to, where that is in this process: answers to RPCs say less than it does. */
import type { RpcClient } from "../../Rpc.ts"

type Listen = (listener: (messages: ReadonlyArray<string>) => void) => () => void

const logs = new WeakMap<RpcClient["Service"], Listen>()

export const hasLog = (rpc: RpcClient["Service"], listen: Listen): void => void logs.set(rpc, listen)

/** Gathers what is logged, until `stop`. Empty where the log is elsewhere, or its level keeps errors out. */
export const gatherLog = (
  rpc: RpcClient["Service"]
): { readonly messages: ReadonlyArray<string>; readonly stop: () => void } => {
  const messages: Array<string> = []
  const stop = logs.get(rpc)?.((added) => void messages.push(...added))
  return { messages, stop: stop ?? (() => {}) }
}
