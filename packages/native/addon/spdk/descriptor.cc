#include "descriptor.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "queue.h"
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

}  // namespace

Descriptor::Descriptor(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox)
    : write_(write), slot_(slot), mailbox_(std::move(mailbox)) {}

Descriptor::~Descriptor() = default;

int Descriptor::Open(const std::string& name, bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox,
                     std::shared_ptr<Descriptor>* out) {
  std::shared_ptr<Descriptor> self(new Descriptor(write, slot, std::move(mailbox)));
  const int rc = spdk_bdev_open_ext(name.c_str(), write, OnEvent, self.get(), &self->desc_);
  if (rc != 0) return rc;
  self->bdev_ = spdk_bdev_desc_get_bdev(self->desc_);
  self->block_size_ = spdk_bdev_get_block_size(self->bdev_);
  self->num_blocks_.store(spdk_bdev_get_num_blocks(self->bdev_), std::memory_order_relaxed);
  self->buffer_alignment_ = spdk_bdev_get_buf_align(self->bdev_);
  for (int type = SPDK_BDEV_IO_TYPE_INVALID + 1; type < SPDK_BDEV_NUM_IO_TYPES; type++) {
    if (spdk_bdev_io_type_supported(self->bdev_, static_cast<spdk_bdev_io_type>(type))) {
      self->supported_ |= uint64_t{1} << type;
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

bool Descriptor::AttachChannel(const std::shared_ptr<Queue>& queue) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closing_ || removed()) return false;
  channels_.push_back(queue);
  return true;
}

void Descriptor::DetachChannel(const std::shared_ptr<Queue>& queue) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    channels_.erase(std::find(channels_.begin(), channels_.end(), queue));
    if (!channels_.empty() || !closing_) return;
  }
  // SPDK wants a descriptor closed on the thread that opened it.
  Runtime::Get().PostToApp([self = shared_from_this()] { self->CloseIfUnused(); });
}

void Descriptor::Close(Done done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) {
      closing_ = true;
      waiting_for_close_.push_back(std::move(done));
      done = nullptr;
    }
  }
  if (done) {
    done();
  } else {
    CloseIfUnused();
  }
}

void Descriptor::CloseIfUnused() {
  std::vector<Done> waiting;
  std::shared_ptr<Descriptor> self;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closing_ || closed_ || !channels_.empty()) return;
    closed_ = true;
    waiting = std::exchange(waiting_for_close_, {});
    self = shared_from_this();
  }
  spdk_bdev_close(std::exchange(desc_, nullptr));
  Runtime::Get().descriptor_count.fetch_sub(1);
  Runtime::Get().Forget(this);
  for (Done& done : waiting) done();
}

void Descriptor::OnEvent(spdk_bdev_event_type type, spdk_bdev* bdev, void* context) {
  auto* self = static_cast<Descriptor*>(context);
  switch (type) {
    case SPDK_BDEV_EVENT_REMOVE:
      self->OnRemoved();
      break;
    case SPDK_BDEV_EVENT_RESIZE: {
      const uint64_t num_blocks = spdk_bdev_get_num_blocks(bdev);
      self->num_blocks_.store(num_blocks, std::memory_order_relaxed);
      Event event;
      event.kind = Event::Kind::kResized;
      event.id = self->slot_;
      event.a = static_cast<double>(num_blocks);
      self->mailbox_->Send(std::move(event));
      break;
    }
    default:
      break;
  }
}

// The device is going away: refuse new I/O, let what is in flight finish, put the channels, close. SPDK's removal
// waits for exactly that, so a handle that nobody closes does not hold it up.
void Descriptor::OnRemoved() {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (removed_.exchange(true)) return;
    closing_ = true;
    queues = channels_;
  }
  Event event;
  event.kind = Event::Kind::kRemoved;
  event.id = slot_;
  mailbox_->Send(std::move(event));
  std::sort(queues.begin(), queues.end());
  queues.erase(std::unique(queues.begin(), queues.end()), queues.end());
  for (const auto& queue : queues) queue->PutChannelsOf(shared_from_this());
  Runtime::Get().PostToApp([self = shared_from_this()] { self->CloseIfUnused(); });
}

}  // namespace effect_spdk
