#include "descriptor.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "claims.h"
#include "lost_writes.h"
#include "runtime.h"
#include "stack.h"

namespace effect_spdk {

namespace {

constexpr char kErrorModule[] = "error";

// Whether the bdev is an error bdev, or one is below it. SPDK loses an abort of a request that such a bdev has handed on, and the abort
// never completes (bdev_abort_io takes the request for one that SPDK has split: lib/bdev/part.c marks it so for this module).
bool StandsOnErrorBdev(spdk_bdev* top) {
  if (!AnyOfModule(kErrorModule)) return false;
  const auto stack = StackOf(top);
  return std::any_of(stack.begin(), stack.end(), [](const spdk_bdev* bdev) { return IsOfModule(bdev, kErrorModule); });
}

}  // namespace

Descriptor::Descriptor(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox)
    : Target(write, slot, std::move(mailbox)) {}

Descriptor::~Descriptor() = default;

int Descriptor::Claim(const std::string& name, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                      std::shared_ptr<Descriptor>* out) {
  std::shared_ptr<Descriptor> self(new Descriptor(false, slot, std::move(mailbox)));
  int rc = spdk_bdev_open_ext(name.c_str(), false, OnEvent, self.get(), &self->desc_);
  if (rc != 0) return rc;
  self->bdev_ = spdk_bdev_desc_get_bdev(self->desc_);
  rc = ClaimBdev(self->bdev_);
  if (rc != 0) {
    spdk_bdev_close(self->desc_);
    return rc;
  }
  self->claims_ = true;
  Runtime::Get().Remember(self);
  *out = self;
  return 0;
}

int Descriptor::Open(const std::string& name, bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                     std::shared_ptr<Descriptor>* out) {
  std::shared_ptr<Descriptor> self(new Descriptor(write, slot, std::move(mailbox)));
  const int rc = spdk_bdev_open_ext(name.c_str(), write, OnEvent, self.get(), &self->desc_);
  if (rc != 0) return rc;
  self->bdev_ = spdk_bdev_desc_get_bdev(self->desc_);
  self->block_size_ = spdk_bdev_get_block_size(self->bdev_);
  self->Resize(spdk_bdev_get_num_blocks(self->bdev_));
  self->buffer_alignment_ = spdk_bdev_get_buf_align(self->bdev_);
  for (int type = SPDK_BDEV_IO_TYPE_INVALID + 1; type < SPDK_BDEV_NUM_IO_TYPES; type++) {
    if (spdk_bdev_io_type_supported(self->bdev_, static_cast<spdk_bdev_io_type>(type))) {
      self->SetSupported(static_cast<spdk_bdev_io_type>(type));
    }
  }
  self->lost_writes_ = LostWrites::Under(self->bdev_);
  if (StandsOnErrorBdev(self->bdev_)) self->SetUnsupported(SPDK_BDEV_IO_TYPE_ABORT);
  Runtime::Get().descriptor_count.fetch_add(1);
  Runtime::Get().Remember(self);
  *out = self;
  return 0;
}

std::string Descriptor::Describe() const {
  char head[512];
  std::snprintf(head, sizeof head,
                "\"blockSizeBytes\":%" PRIu32 ",\"numBlocks\":%" PRIu64
                ",\"bufferAlignmentBytes\":%zu,\"writeUnitBlocks\":%" PRIu32 ",\"optimalIoBoundaryBlocks\":%" PRIu32
                ",\"hasWriteCache\":%s,\"supportedIoTypes\":[",
                block_size_, num_blocks(), buffer_alignment_, spdk_bdev_get_write_unit_size(bdev_),
                spdk_bdev_get_optimal_io_boundary(bdev_), spdk_bdev_has_write_cache(bdev_) ? "true" : "false");
  std::string out = "{\"name\":" + JsonString(spdk_bdev_get_name(bdev_)) +
                    ",\"productName\":" + JsonString(spdk_bdev_get_product_name(bdev_)) + "," + head;
  bool first = true;
  for (int type = SPDK_BDEV_IO_TYPE_INVALID + 1; type < SPDK_BDEV_NUM_IO_TYPES; type++) {
    if (!Supports(static_cast<spdk_bdev_io_type>(type))) continue;
    const char* name = spdk_bdev_get_io_type_name(static_cast<spdk_bdev_io_type>(type));
    if (name == nullptr) continue;
    if (!first) out += ',';
    first = false;
    out += JsonString(name);
  }
  return out + "]}";
}

spdk_io_channel* Descriptor::GetIoChannel() { return spdk_bdev_get_io_channel(desc_); }

bool Descriptor::HasLostWrites() const {
  return std::any_of(lost_writes_.begin(), lost_writes_.end(), [](const auto& one) { return one->any(); });
}

void Descriptor::OnFlushFailed() {
  for (const auto& one : lost_writes_) one->Mark();
}

void Descriptor::CloseNow() {
  const auto self = shared_from_this();
  if (claims_) ReleaseClaim(bdev_);
  lost_writes_.clear();
  spdk_bdev_close(std::exchange(desc_, nullptr));
  if (!claims_) Runtime::Get().descriptor_count.fetch_sub(1);
  Runtime::Get().Forget(this);
  Closed(0);
}

void Descriptor::OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context) {
  auto* self = static_cast<Descriptor*>(context);
  switch (type) {
    case SPDK_BDEV_EVENT_REMOVE:
      self->Remove();
      break;
    case SPDK_BDEV_EVENT_RESIZE:
      self->Resized(spdk_bdev_get_num_blocks(bdev));
      break;
    default:
      break;
  }
}

}  // namespace effect_spdk
