// Which SPDK threads run where, for the idle pollers: every thread notes itself.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "idle.h"
#include "runtime.h"
#include "spdk_headers.h"

namespace effect_spdk {

namespace {

struct ThreadCensus {
  std::mutex mutex;
  std::map<uint32_t, Idle::Neighbours> by_core;
  std::function<void(std::map<uint32_t, Idle::Neighbours>)> done;
};

void NoteThread(void* context) {
  auto* census = static_cast<ThreadCensus*>(context);
  spdk_thread* const thread = spdk_get_thread();
  const uint64_t id = spdk_thread_get_id(thread);
  if (Runtime::Get().IsQueue(id)) return;
  const std::lock_guard<std::mutex> lock(census->mutex);
  Idle::Neighbours& here = census->by_core[spdk_env_get_current_core()];
  if (StaysOnItsCore(thread)) {
    here.pinned.push_back(id);
  } else {
    here.roaming = true;
  }
}

void FinishCensus(void* context) {
  const std::unique_ptr<ThreadCensus> census(static_cast<ThreadCensus*>(context));
  census->done(std::move(census->by_core));
}

}  // namespace

void Runtime::TakeCensus(Runtime* runtime) {
  // A reactor that is busy for long answers late.
  if (std::exchange(runtime->census_running_, true)) return;
  auto* census = new ThreadCensus;
  census->done = [runtime](std::map<uint32_t, Idle::Neighbours> by_core) {
    for (const auto& [at, idle] : runtime->idle_) idle->SetNeighbours(std::move(by_core[at]));
    runtime->census_running_ = false;
  };
  spdk_for_each_thread(NoteThread, census, FinishCensus);
}

}  // namespace effect_spdk
