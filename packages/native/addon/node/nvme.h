// What JavaScript may ask of NVMe controllers. All of it is answered through the mailbox.
#pragma once

#include <napi.h>

namespace effect_spdk {

// nvmeConnect(request, {trtype, adrfam, traddr, trsvcid, subnqn, priority, hostnqn, hostId, ...}): number, the
// controller's id. Reply text: {cap, vs, ioQueues, maxTransferBytes} as JSON, or why it failed.
Napi::Value NvmeConnect(const Napi::CallbackInfo& info);
// nvmeCall(request, controller, name): "giveUp" ends a connect that is not through; "disconnect"; "reset"; "namespaces",
// whose reply text is JSON.
void NvmeCall(const Napi::CallbackInfo& info);
// nvmeOpen(request, controller, nsid) -> reply a: target, text: its description as JSON
void NvmeOpen(const Napi::CallbackInfo& info);
// nvmeAdmin(request, controller, command, slabSlot, slabGeneration, offset, lengthBytes) -> reply bytes: the completion.
// lengthBytes 0: no data.
void NvmeAdmin(const Napi::CallbackInfo& info);
// nvmeAbort(controller, request): void - tries to abort that nvmeAdmin, which is answered in any case.
void NvmeAbort(const Napi::CallbackInfo& info);
// nvmeScan(request, trtype) -> reply text: addresses of the devices of this machine, a line each
void NvmeScan(const Napi::CallbackInfo& info);

}  // namespace effect_spdk
