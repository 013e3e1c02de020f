#include "descriptor.h"

#include <cinttypes>
#include <cstdio>
#include <utility>

#include "runtime.h"

namespace effect_spdk {

namespace {

std::string JsonString(const char* text) {
  std::string out = "\"";
  for (const char* c = text; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') {
      out += '\\';
      out += *c;
    } else if (static_cast<unsigned char>(*c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(*c)));
      out += escaped;
    } else {
      out += *c;
    }
  }
  return out + "\"";
}

void IgnoreEvent(spdk_bdev_event_type, spdk_bdev*, void*) {}

}  // namespace

std::string ClaimOf(const std::string& name) {
  spdk_bdev_desc* desc = nullptr;
  if (spdk_bdev_open_ext(name.c_str(), false, IgnoreEvent, nullptr, &desc) != 0) return {};
  const auto& internal = spdk_bdev_desc_get_bdev(desc)->internal;
  std::string text;
  const spdk_bdev_module* module = nullptr;
  if (internal.claim_type == SPDK_BDEV_CLAIM_EXCL_WRITE) {
    module = internal.claim.v1.module;
  } else if (internal.claim_type != SPDK_BDEV_CLAIM_NONE) {
    const spdk_bdev_module_claim* first = TAILQ_FIRST(&internal.claim.v2.claims);
    if (first != nullptr) module = first->module;
  }
  if (module != nullptr) {
    text = std::string("claimed by module ") + module->name + " (" + spdk_bdev_claim_get_name(internal.claim_type) + ")";
  }
  spdk_bdev_close(desc);
  return text;
}

Descriptor::Descriptor(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox)
    : Target(write, slot, std::move(mailbox)) {}

Descriptor::~Descriptor() = default;

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

void Descriptor::CloseNow() {
  const auto self = shared_from_this();
  spdk_bdev_close(std::exchange(desc_, nullptr));
  Runtime::Get().descriptor_count.fetch_sub(1);
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
