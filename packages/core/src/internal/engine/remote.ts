/**
 * The engine of somebody else's SPDK: its control plane over JSON-RPC, and no data plane. Whatever would need one
 * fails with NotSupported and names this engine.
 */
import { Detail } from "@effect-spdk/native/Layout"
import type { Completion } from "@effect-spdk/native/Queue"
import * as Effect from "effect/Effect"
import type { RpcClient } from "../../Rpc.ts"
import * as Rpc from "../../Rpc.ts"
import { NotSupported, type RpcReason, SpdkError } from "../../SpdkError.ts"
import type { Engine, EngineThread, EngineUsage } from "./engine.ts"

// A number no queue gives.
const noThread = -1
const enotsup = -95

/** Asks the server for its version, so that an engine that was made has been reached once. */
export const make = Effect.fnUntraced(function* (
  rpc: RpcClient["Service"]
): Effect.fn.Return<Engine, SpdkError<RpcReason>> {
  const { version } = yield* Rpc.callWith(rpc, "spdk_get_version")
  const description = `the remote engine at ${rpc.address} (${version}) has a control plane only`
  const refuse = (operation: string) =>
    Effect.fail(new SpdkError({ reason: new NotSupported({ operation, resource: "remote", detail: description }) }))
  return {
    kind: "remote",
    version,
    description,
    rpcSocket: rpc.address.startsWith("unix:") ? rpc.address.slice("unix:".length) : undefined,
    rpc,
    memory: {
      allocate: () => refuse("DmaBuffer.make"),
      free: () => {},
      renew: (slab) => slab
    },
    mainThread,
    spawn: () => refuse("SpdkThread.spawn"),
    openBdev: () => refuse("Bdev.open"),
    closeBdev: () => Effect.void,
    claimBdev: (_name, operation) => refuse(operation),
    openChannel: () => refuse("Bdev.channel"),
    closeChannel: () => Effect.void,
    registerPoller: () => refuse("Poller.make"),
    usage: Effect.succeed(nothing),
    loadedInTypeScript: new Set()
  }
})

/** Stands where a thread must stand; completes whatever it is given with "not supported". */
const mainThread: EngineThread = {
  id: noThread,
  name: "remote",
  queue: {
    inFlight: 0,
    immediate: undefined,
    abort: () => {},
    cork: () => {},
    uncork: () => {},
    submit: (_entry, completion: Completion, index) => {
      queueMicrotask(() => completion.complete(index, enotsup, Detail.NotSupported, 0))
      return 0
    }
  }
}

const nothing: EngineUsage = {
  threads: 0,
  descriptors: 0,
  channels: 0,
  pollers: 0,
  blobstores: 0,
  blobs: 0,
  nvmeControllers: 0,
  slabs: 0,
  dmaBytes: 0,
  requestsInFlight: 0
}
