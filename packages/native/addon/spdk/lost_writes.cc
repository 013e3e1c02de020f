#include "lost_writes.h"

#include <map>
#include <string>
#include <utility>

#include "runtime.h"
#include "stack.h"

namespace effect_spdk {

namespace {

// SPDK's io_uring bdevs offer no flush.
constexpr char kFileModule[] = "aio";

std::map<spdk_bdev*, std::weak_ptr<LostWrites>>& All() {
  static auto* const all = new std::map<spdk_bdev*, std::weak_ptr<LostWrites>>;
  return *all;
}

}  // namespace

std::vector<std::shared_ptr<LostWrites>> LostWrites::Under(spdk_bdev* bdev) {
  std::vector<std::shared_ptr<LostWrites>> found;
  if (!AnyOfModule(kFileModule)) return found;
  for (spdk_bdev* const below : StackOf(bdev)) {
    if (!IsOfModule(below, kFileModule)) continue;
    auto& known = All()[below];
    auto one = known.lock();
    if (one == nullptr) known = one = std::make_shared<LostWrites>(below);
    found.push_back(std::move(one));
  }
  return found;
}

LostWrites::LostWrites(spdk_bdev* bdev) : bdev_(bdev), name_(spdk_bdev_get_name(bdev)) {}

LostWrites::~LostWrites() = default;

void LostWrites::Mark() {
  if (any_.exchange(true, std::memory_order_relaxed)) return;
  Runtime::Get().PostToApp([self = shared_from_this()] { self->Keep(); });
}

void LostWrites::Keep() {
  if (spdk_bdev_open_ext(name_.c_str(), false, OnEvent, this, &desc_) != 0) return;
  // Another bdev may have its name by now.
  if (spdk_bdev_desc_get_bdev(desc_) != bdev_) return spdk_bdev_close(std::exchange(desc_, nullptr));
  self_ = shared_from_this();
}

void LostWrites::OnEvent(spdk_bdev_event_type type, spdk_bdev*, void* context) {
  if (type != SPDK_BDEV_EVENT_REMOVE) return;
  auto* const self = static_cast<LostWrites*>(context);
  // The next bdev may be at the same address.
  All().erase(self->bdev_);
  spdk_bdev_close(std::exchange(self->desc_, nullptr));
  const auto last = std::exchange(self->self_, nullptr);
}

}  // namespace effect_spdk
