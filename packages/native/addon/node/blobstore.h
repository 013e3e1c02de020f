// The functions that JavaScript calls for blobstores and blobs.
#pragma once

#include <napi.h>

namespace effect_spdk {

// blobstoreCall(request, name, store or blob, numbers, texts, values) -> reply a: what was opened; text, bytes
void CallBlobstores(const Napi::CallbackInfo& info);

}  // namespace effect_spdk
