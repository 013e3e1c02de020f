#include "queues.h"

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "../spdk/claims.h"
#include "../spdk/descriptor.h"
#include "calls.h"

namespace effect_spdk {

namespace {

constexpr uint32_t kMostRingEntries = 1u << 16;

enum class PollerAction : uint32_t { kStats = 0, kPause = 1, kResume = 2, kUnregister = 3 };

std::shared_ptr<Queue> QueueOf(Environment& environment, uint32_t id) { return environment.holdings().queues.Find(id); }

}  // namespace

void Spawn(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  Queue::Options options;
  options.name = arguments.String(1);
  options.cpu_mask = arguments.String(2);
  options.sq_entries = arguments.U32(3);
  options.cq_entries = arguments.U32(4);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto valid = [](uint32_t entries) { return Ring::IsPowerOfTwo(entries) && entries <= kMostRingEntries; };
  if (!valid(options.sq_entries) || !valid(options.cq_entries)) {
    return holdings->Reply(request, -EINVAL);
  }
  const bool posted = Runtime::Get().PostToApp([holdings, request, options] {
    Queue::Spawn(options, holdings->mailbox, holdings->slabs, [holdings, request](int status, std::shared_ptr<Queue> queue) {
      if (status != 0) return holdings->Reply(request, status);
      const uint32_t id = holdings->queues.Reserve();
      holdings->queues.Put(id, queue);
      // The environment may have ended between the question and this answer.
      if (holdings->ended) {
        queue->Close([](int) {});
        return;
      }
      holdings->Reply(request, {.a = static_cast<double>(id), .b = static_cast<double>(queue->thread_id())});
    });
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

Napi::Value RingBuffer(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t id = arguments.U32(0);
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto queue = QueueOf(*environment, id);
  if (queue == nullptr) return info.Env().Undefined();
  auto* memory = new std::shared_ptr<RingMemory>(queue->memory());
  const Napi::ArrayBuffer ring = Napi::ArrayBuffer::New(
      info.Env(), (*memory)->words, (*memory)->size_bytes,
      [](Napi::BasicEnv, void*, std::shared_ptr<RingMemory>* held) { delete held; }, memory);
  if (ring.IsEmpty()) delete memory;
  return ring;
}

void Exit(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t id = arguments.U32(1);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto queue = QueueOf(*environment, id);
  if (queue == nullptr) return holdings->Reply(request, 0);
  queue->Close([holdings, request, id](int status) {
    holdings->queues.Erase(id);
    holdings->Reply(request, status);
  });
}

void Kick(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t id = arguments.U32(0);
  if (environment == nullptr || !arguments.ok()) return;
  if (const auto queue = QueueOf(*environment, id)) queue->Kick();
}

void BdevOpen(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  std::string name = arguments.String(1);
  const bool write = arguments.Bool(2);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const uint32_t id = holdings->targets.Reserve();
  const bool posted = Runtime::Get().PostToApp([holdings, request, id, name = std::move(name), write] {
    std::shared_ptr<Descriptor> descriptor;
    const int status = Descriptor::Open(name, write, id, holdings->mailbox, &descriptor);
    if (status != 0) {
      return holdings->Reply(request, {.status = status, .text = status == -EPERM ? ClaimOf(name) : std::string()});
    }
    holdings->targets.Put(id, descriptor);
    if (holdings->ended) return descriptor->Close([](int) {});
    holdings->Reply(request, {.a = static_cast<double>(id), .text = descriptor->Describe()});
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

void BdevClaim(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  std::string name = arguments.String(1);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const uint32_t id = holdings->targets.Reserve();
  const bool posted = Runtime::Get().PostToApp([holdings, request, id, name = std::move(name)] {
    std::shared_ptr<Descriptor> claim;
    const int status = Descriptor::Claim(name, id, holdings->mailbox, &claim);
    if (status != 0) return holdings->Reply(request, {.status = status, .text = ClaimOf(name)});
    holdings->targets.Put(id, claim);
    if (holdings->ended) return claim->Close([](int) {});
    holdings->Reply(request, {.a = static_cast<double>(id)});
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

void BdevClaimOf(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  std::string name = arguments.String(1);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const bool posted = Runtime::Get().PostToApp([holdings, request, name = std::move(name)] {
    std::string text = ClaimOf(name);
    const bool has_writer = text.empty() && HasWriter(name);
    holdings->Reply(request, {.a = has_writer ? 1.0 : 0.0, .text = std::move(text)});
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

void BdevClose(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t id = arguments.U32(1);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto target = holdings->targets.Find(id);
  if (target == nullptr) return holdings->Reply(request, 0);
  const bool posted = Runtime::Get().PostToApp([holdings, request, id, target] {
    target->Close([holdings, request, id](int status) {
      holdings->targets.Erase(id);
      holdings->Reply(request, status);
    });
  });
  if (!posted) holdings->Reply(request, 0);
}

void ChannelOpen(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t queue_id = arguments.U32(1);
  const uint32_t target_id = arguments.U32(2);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto queue = QueueOf(*environment, queue_id);
  const auto target = holdings->targets.Find(target_id);
  if (queue == nullptr || target == nullptr) return holdings->Reply(request, -EBADF);
  const bool posted = queue->Post([holdings, request, queue, target] {
    queue->OpenChannel(target, [holdings, request](int status, Queue::ChannelHandle handle) {
      holdings->Reply(request, {.status = status,
                                .a = static_cast<double>(handle.slot),
                                .b = static_cast<double>(handle.generation)});
    });
  });
  if (!posted) holdings->Reply(request, -ECANCELED);
}

void ChannelClose(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t queue_id = arguments.U32(1);
  const Queue::ChannelHandle handle = {arguments.U32(2), arguments.U32(3)};
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto queue = QueueOf(*environment, queue_id);
  if (queue == nullptr) return holdings->Reply(request, 0);
  const bool posted = queue->Post([holdings, request, queue, handle] {
    queue->CloseChannel(handle, [holdings, request](int status) { holdings->Reply(request, status); });
  });
  if (!posted) holdings->Reply(request, 0);
}

void PollerRegister(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t queue_id = arguments.U32(1);
  const uint32_t id = arguments.U32(2);
  std::string name = arguments.String(3);
  const uint64_t period_micros = arguments.U53(4);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto queue = QueueOf(*environment, queue_id);
  const bool posted = queue != nullptr && queue->Post([holdings, request, queue, id, name = std::move(name), period_micros] {
    holdings->Reply(request, queue->RegisterPoller(id, name, period_micros));
  });
  if (!posted) holdings->Reply(request, -ECANCELED);
}

void PollerControl(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t queue_id = arguments.U32(1);
  const uint32_t id = arguments.U32(2);
  const auto action = static_cast<PollerAction>(arguments.U32(3));
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const auto queue = QueueOf(*environment, queue_id);
  const bool posted = queue != nullptr && queue->Post([holdings, request, queue, id, action] {
    Queue::PollerStats stats;
    bool found = false;
    switch (action) {
      case PollerAction::kStats:
        found = queue->GetPollerStats(id, &stats);
        break;
      case PollerAction::kPause:
      case PollerAction::kResume:
        found = queue->PausePoller(id, action == PollerAction::kPause) && queue->GetPollerStats(id, &stats);
        break;
      case PollerAction::kUnregister:
        found = queue->UnregisterPoller(id, &stats);
        break;
    }
    holdings->Reply(request, {.status = found ? 0 : -ENOENT,
                              .a = static_cast<double>(stats.runs),
                              .b = static_cast<double>(stats.busy)});
  });
  if (!posted) holdings->Reply(request, -ENOENT);
}

}  // namespace effect_spdk
