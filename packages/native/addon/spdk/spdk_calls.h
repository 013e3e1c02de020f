// C callbacks of SPDK that run a function once.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "spdk_headers.h"

namespace effect_spdk {

template <typename... Arguments>
struct Callback {
  using Function = std::function<void(Arguments...)>;

  // Runs, and deletes, the function that `Keep` kept.
  static void Run(void* context, Arguments... arguments) {
    const std::unique_ptr<Function> function(static_cast<Function*>(context));
    (*function)(arguments...);
  }
  static void* Keep(Function function) { return new Function(std::move(function)); }
};

using OnStatus = Callback<int>;
using OnBlobId = Callback<spdk_blob_id, int>;
using OnBlob = Callback<spdk_blob*, int>;
using OnStore = Callback<spdk_blob_store*, int>;

}  // namespace effect_spdk
