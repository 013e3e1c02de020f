// The functions that JavaScript calls for memory that devices read and write.
#pragma once

#include <napi.h>

namespace effect_spdk {

// dmaAllocate(request, lengthBytes, alignmentBytes) -> reply a: slot, b: generation
void DmaAllocate(const Napi::CallbackInfo& info);
// dmaAllocateNow(lengthBytes, alignmentBytes): [slot, generation] | errno - for what is zeroed in microseconds.
Napi::Value DmaAllocateNow(const Napi::CallbackInfo& info);
// dmaView(slot, generation): ArrayBuffer over the memory itself.
Napi::Value DmaView(const Napi::CallbackInfo& info);
// dmaFree(slot, generation, view): void - detaches the view; the memory goes back after the last request that uses it.
void DmaFree(const Napi::CallbackInfo& info);
// dmaRenew(slot, generation, view): number - detaches the view and returns the new generation, 0 when that cannot be.
Napi::Value DmaRenew(const Napi::CallbackInfo& info);

}  // namespace effect_spdk
