import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

// An image of a Ceph cluster as a bdev. SPDK must be built with RBD and must find the cluster's configuration and a keyring.
const image = Bdev.create({
  method: "bdev_rbd_create",
  params: { name: "image", pool_name: "rbd", rbd_name: "volume", block_size: 4096 },
  deleteMethod: "bdev_rbd_delete"
})

// One of two gateways. The other one has the same nqn, serial number and uuid, and a different range of controller ids.
const program = Effect.gen(function* () {
  const target = yield* NvmfTarget.NvmfTarget
  const subsystem = yield* target.subsystem({
    nqn: "nqn.2026-01.com.example:volume",
    serialNumber: "VOLUME-1",
    anaReporting: true,
    minCntlid: 1,
    maxCntlid: 1000
  })
  yield* subsystem.addNamespace({ bdev: yield* image, nsid: 1, uuid: "3a0a2b8e-58c6-4f0b-9c44-54b3a1f0f4cd" })
  yield* subsystem.addHost({ nqn: "nqn.2026-01.com.example:this-machine" })
  yield* subsystem.addListener({ traddr: "192.0.2.1", anaState: "optimized" })
  return yield* Effect.never
}).pipe(Effect.scoped)

NodeRuntime.runMain(program.pipe(Effect.provide(NvmfTarget.layer().pipe(Layer.provideMerge(Spdk.layer())))))
