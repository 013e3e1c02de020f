// A queue's channels and pollers, and its end.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "blob.h"
#include "descriptor.h"
#include "nvme_qpair.h"
#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

constexpr uint32_t kMostChannels = layout::sqe::no_slot;

}  // namespace

void Queue::OpenChannel(const std::shared_ptr<Target>& target, Opened opened) {
  AssertThread();
  if (closing_) return opened(-ECANCELED, {});
  if (!target->AttachChannel(shared_from_this())) return opened(target->removed() ? -ENODEV : -EBADF, {});
  uint32_t slot = 0;
  while (slot < channels_.size() && channels_[slot]->state != Channel::State::kFree) slot++;
  if (slot == kMostChannels) {
    target->DetachChannel(shared_from_this());
    return opened(-ENOMEM, {});
  }
  const bool nvme = target->AsNvme() != nullptr;
  spdk_io_channel* io_channel = nvme ? nullptr : target->GetIoChannel();
  if (io_channel == nullptr && !nvme) {
    target->DetachChannel(shared_from_this());
    return opened(-ENOMEM, {});
  }
  if (slot == channels_.size()) {
    channels_.push_back(std::make_unique<Channel>());
    channels_.back()->queue = this;
  }
  Channel& channel = *channels_[slot];
  channel.state = Channel::State::kOpen;
  channel.target = target;
  Blob* const blob = target->AsBlob();
  channel.blob = blob == nullptr ? nullptr : blob->blob();
  // There are three kinds of targets.
  channel.desc = blob == nullptr && !nvme ? static_cast<Descriptor*>(target.get())->desc() : nullptr;
  channel.io_channel = io_channel;
  Runtime::Get().channel_count.fetch_add(1);
  if (!nvme) return opened(0, {slot, channel.generation});
  const int status = OpenNvmeChannel(&channel, target, opened);
  if (status != 0) CloseChannel({slot, channel.generation}, [opened, status](int) { opened(status, {}); });
}

Queue::ChannelHandle Queue::HandleOf(const Channel* channel) const {
  uint32_t slot = 0;
  while (channels_[slot].get() != channel) slot++;
  return {slot, channel->generation};
}

void Queue::CloseChannel(ChannelHandle handle, Done done) {
  AssertThread();
  Channel* channel = FindChannel(handle.slot, handle.generation);
  if (channel == nullptr) return done(0);
  channel->waiting.push_back(std::move(done));
  if (channel->state == Channel::State::kOpen) channel->state = Channel::State::kClosing;
  PutChannelIfUnused(channel);
}

// Puts the channel of a closing one, and frees the slot once somebody has asked for its close: until then its handle
// answers "removed", not "stale".
void Queue::PutChannelIfUnused(Channel* channel) {
  if (channel->state == Channel::State::kOpen || channel->in_flight != 0) return;
  if (channel->state == Channel::State::kClosing) {
    if (channel->nvme != nullptr && !ReleaseNvme(channel)) return;
    EFFECT_SPDK_ASSERT(channel->asked == 0 && channel->nvme_waiting_head == nullptr);
    channel->state = Channel::State::kPut;
    if (channel->io_channel != nullptr) spdk_put_io_channel(std::exchange(channel->io_channel, nullptr));
    Runtime::Get().channel_count.fetch_sub(1);
    channel->target->DetachChannel(shared_from_this());
  }
  if (channel->state != Channel::State::kPut || channel->waiting.empty()) return;
  std::vector<Done> waiting = std::exchange(channel->waiting, {});
  channel->target = nullptr;
  channel->generation = channel->generation == UINT32_MAX ? 1 : channel->generation + 1;
  channel->state = Channel::State::kFree;
  for (Done& done : waiting) done(0);
}

void Queue::PutChannelsOf(std::shared_ptr<Target> target) {
  Post([this, keep = shared_from_this(), target = std::move(target)] {
    for (const auto& channel : channels_) {
      if (channel->target != target || channel->state != Channel::State::kOpen) continue;
      channel->state = Channel::State::kClosing;
      PutChannelIfUnused(channel.get());
    }
  });
}

int Queue::RegisterPoller(uint32_t id, const std::string& name, uint64_t period_micros) {
  if (closing_) return -ECANCELED;
  auto poller = std::make_unique<Poller>();
  poller->queue = this;
  poller->id = id;
  poller->poller =
      spdk_poller_register_named(RunPoller, poller.get(), std::min(period_micros, kLongestTimerMicros), name.c_str());
  if (poller->poller == nullptr) return -ENOMEM;
  Runtime::Get().poller_count.fetch_add(1);
  pollers_.push_back(std::move(poller));
  return 0;
}

int Queue::RunPoller(void* context) {
  auto* poller = static_cast<Poller*>(context);
  poller->runs++;
  if (poller->undelivered != UINT32_MAX) poller->undelivered++;
  const uint64_t busy = poller->busy;
  poller->queue->DeliverTick(poller);
  return poller->busy != busy ? SPDK_POLLER_BUSY : SPDK_POLLER_IDLE;
}

// At most one tick of a poller is in the ring; it says how many runs it stands for.
void Queue::DeliverTick(Poller* poller) {
  if (poller->tick_in_ring && !ring_->Consumed(poller->tick_position)) return;
  poller->tick_in_ring = false;
  if (poller->undelivered == 0 || !ring_->HasRoom()) return;
  CompletionEntry tick;
  tick.id = poller->id;
  tick.kind = CompletionKind::kTick;
  tick.runs = std::exchange(poller->undelivered, 0);
  poller->tick_position = ring_->Push(tick);
  poller->tick_in_ring = true;
  poller->busy++;
  activity_.Add(1);
}

std::deque<std::unique_ptr<Queue::Poller>>::const_iterator Queue::FindPoller(uint32_t id) const {
  return std::find_if(pollers_.begin(), pollers_.end(), [id](const auto& poller) { return poller->id == id; });
}

bool Queue::PausePoller(uint32_t id, bool pause) {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  if (pause) {
    spdk_poller_pause((*found)->poller);
  } else {
    spdk_poller_resume((*found)->poller);
  }
  return true;
}

bool Queue::GetPollerStats(uint32_t id, PollerStats* stats) const {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  *stats = {(*found)->runs, (*found)->busy};
  return true;
}

bool Queue::UnregisterPoller(uint32_t id, PollerStats* stats) {
  const auto found = FindPoller(id);
  if (found == pollers_.end()) return false;
  *stats = {(*found)->runs, (*found)->busy};
  spdk_poller_unregister(&(*found)->poller);
  pollers_.erase(found);
  Runtime::Get().poller_count.fetch_sub(1);
  return true;
}

void Queue::Close(Done done) {
  auto shared_done = std::make_shared<Done>(std::move(done));
  const bool posted = Post([this, keep = shared_from_this(), shared_done] {
    if (closed_) return (*shared_done)(0);
    waiting_for_close_.push_back(std::move(*shared_done));
    if (!std::exchange(closing_, true)) AbortAll();
  });
  if (!posted) (*shared_done)(0);
}

// At every turn of a closing queue, until its devices have answered.
void Queue::ContinueClosing() {
  if (closed_) return;
  for (const auto& poller : pollers_) {
    spdk_poller_unregister(&poller->poller);
    Runtime::Get().poller_count.fetch_sub(1);
  }
  pollers_.clear();
  while (ConsumeRing() != 0) {
  }
  FlushBacklog();
  bool waiting = in_flight() != 0;
  for (const auto& channel : channels_) {
    if (channel->state == Channel::State::kOpen) channel->state = Channel::State::kClosing;
    if (channel->state == Channel::State::kClosing) {
      PutChannelIfUnused(channel.get());
      waiting = waiting || channel->state == Channel::State::kClosing;
    }
  }
  Publish();
  if (!waiting) FinishClosing();
}

void Queue::FinishClosing() {
  EFFECT_SPDK_ASSERT(in_flight() == 0 && device_in_flight() == 0 && blob_in_flight_ == 0);
  EFFECT_SPDK_ASSERT(waiting_head_ == nullptr && waiting_for_blob_head_ == nullptr && backlog_head_ == nullptr);
  closed_ = true;
  for (const auto& channel : channels_) {
    for (Done& done : std::exchange(channel->waiting, {})) done(0);
    channel->target = nullptr;
  }
  CloseNvmeGroup();
  Runtime::Get().LeaveCore(core(), this);
  spdk_poller_unregister(&poller_);
  spdk_thread_exit(thread_);
  Runtime::Get().thread_count.fetch_sub(1);
  Runtime::Get().Forget(this);
  const auto never_run = inbox_.Close();
  for (Done& done : std::exchange(waiting_for_close_, {})) done(0);
  // Tasks that came too late find the queue closed, and answer whoever waits for them.
  for (const auto& task : never_run) task();
}

}  // namespace effect_spdk
