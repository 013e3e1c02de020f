#include "target.h"

#include <algorithm>
#include <utility>

#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

Target::Target(bool write, uint32_t slot, std::shared_ptr<Mailbox> mailbox)
    : write_(write), slot_(slot), mailbox_(std::move(mailbox)) {}

Target::~Target() = default;

bool Target::AttachChannel(const std::shared_ptr<Queue>& queue) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closing_ || removed()) return false;
  channels_.push_back(queue);
  return true;
}

void Target::DetachChannel(const std::shared_ptr<Queue>& queue) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    channels_.erase(std::find(channels_.begin(), channels_.end(), queue));
    if (!channels_.empty() || !closing_) return;
  }
  // SPDK wants what was opened on the app thread closed there.
  Runtime::Get().PostToApp([self = shared_from_this()] { self->CloseIfUnused(); });
}

void Target::Close(Done done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) {
      closing_ = true;
      waiting_for_close_.push_back(std::move(done));
      done = nullptr;
    }
  }
  if (done) {
    done(0);
  } else {
    CloseIfUnused();
  }
}

void Target::Pause() {
  const std::lock_guard<std::mutex> lock(mutex_);
  pauses_.fetch_add(1, std::memory_order_release);
}

bool Target::closing() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return closing_;
}

void Target::CloseIfUnused() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closing_ || close_begun_ || !channels_.empty() || busy()) return;
    close_begun_ = true;
  }
  CloseNow();
}

void Target::Closed(int status) {
  std::vector<Done> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    waiting = std::exchange(waiting_for_close_, {});
  }
  for (Done& done : waiting) done(status);
}

void Target::Resized(uint64_t num_blocks) {
  Resize(num_blocks);
  Event event;
  event.kind = Event::Kind::kResized;
  event.id = slot_;
  event.a = static_cast<double>(num_blocks);
  mailbox_->Send(std::move(event));
}

std::vector<std::shared_ptr<Queue>> Target::Queues() {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queues = channels_;
  }
  std::sort(queues.begin(), queues.end());
  queues.erase(std::unique(queues.begin(), queues.end()), queues.end());
  return queues;
}

// SPDK's removal waits for exactly that, so a handle that nobody closes does not hold it up.
void Target::Remove() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (removed_.exchange(true)) return;
    closing_ = true;
  }
  Event event;
  event.kind = Event::Kind::kRemoved;
  event.id = slot_;
  mailbox_->Send(std::move(event));
  for (const auto& queue : Queues()) queue->PutChannelsOf(shared_from_this());
  Runtime::Get().PostToApp([self = shared_from_this()] { self->CloseIfUnused(); });
}

}  // namespace effect_spdk
