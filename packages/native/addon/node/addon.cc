// The functions that JavaScript calls. Control plane only: I/O goes through the rings. Every call returns at once; what
// takes time is answered through the mailbox, under the request number that the caller chose.
#include <napi.h>
#include <sched.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "../spdk/runtime.h"
#include "blobstore.h"
#include "calls.h"
#include "nvme.h"

namespace effect_spdk {
namespace {

constexpr uint32_t kMostRingEntries = 1u << 16;

std::shared_ptr<Queue> QueueOf(Environment& environment, uint32_t id) { return environment.holdings().queues.Find(id); }

// attach(onWake: (events: boolean, sharesProcessor: boolean) => void): void
void Attach(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<InstanceData>();
  if (data->environment != nullptr || !info[0].IsFunction()) {
    Napi::Error::New(info.Env(), "attach takes one function, once").ThrowAsJavaScriptException();
    return;
  }
  auto environment = std::make_shared<Environment>(info[0].As<Napi::Function>());
  if (environment->Start()) data->environment = std::move(environment);
}

// keepAlive(alive: boolean): void - whether a wake-up that may come holds the event loop.
void KeepAlive(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const bool alive = arguments.Bool(0);
  if (environment == nullptr || !arguments.ok()) return;
  environment->watch().HoldLoop(alive);
}

// sharesProcessor(): boolean
Napi::Value SharesProcessor(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  if (environment == nullptr) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), environment->SharesProcessor());
}

// drain(): { events: Array<{kind, id, status, a, b, c, text, bytes?}>, droppedLogLines }
Napi::Value Drain(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  if (environment == nullptr) return info.Env().Undefined();
  const Mailbox::Batch batch = environment->holdings().mailbox->Take();
  Napi::Array events = Napi::Array::New(info.Env(), batch.events.size());
  uint32_t index = 0;
  for (const Event& event : batch.events) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("kind", static_cast<uint32_t>(event.kind));
    object.Set("id", event.id);
    object.Set("status", event.status);
    object.Set("a", event.a);
    object.Set("b", event.b);
    object.Set("c", event.c);
    object.Set("text", event.text);
    if (!event.bytes.empty()) {
      object.Set("bytes", Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(event.bytes.data()), event.bytes.size()));
    }
    events.Set(index++, object);
  }
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("events", events);
  out.Set("droppedLogLines", static_cast<double>(batch.dropped_log_lines));
  return out;
}

std::vector<std::string> StringList(const Napi::Value& value) {
  std::vector<std::string> list;
  if (!value.IsArray()) return list;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) list.push_back(array.Get(i).ToString().Utf8Value());
  return list;
}

// start(request, {name, cores, rpcSocket, logLevel, pciAllowed, pciBlocked, memoryMiB, hugepages, pci, adaptive, waitForRpc, key})
void Start(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const Napi::Object object = arguments.Object(1);
  if (environment == nullptr || !arguments.ok()) return;
  RuntimeOptions options;
  options.name = object.Get("name").ToString().Utf8Value();
  options.core_list = object.Get("cores").ToString().Utf8Value();
  options.rpc_socket = object.Get("rpcSocket").ToString().Utf8Value();
  options.rpc_directory = object.Get("rpcDirectory").ToString().Utf8Value();
  options.rpc_link = object.Get("rpcLink").ToString().Utf8Value();
  options.log_level = object.Get("logLevel").ToString().Utf8Value();
  options.pci_allowed = StringList(object.Get("pciAllowed"));
  options.pci_blocked = StringList(object.Get("pciBlocked"));
  options.memory_mib = object.Get("memoryMiB").ToNumber().Int32Value();
  options.hugepages = object.Get("hugepages").ToBoolean().Value();
  options.pci = object.Get("pci").ToBoolean().Value();
  options.adaptive = object.Get("adaptive").ToBoolean().Value();
  options.wait_for_rpc = object.Get("waitForRpc").ToBoolean().Value();
  options.key = object.Get("key").ToString().Utf8Value();
  Runtime::Get().Start(options, {environment->holdings().mailbox, request},
                       [holdings = environment->shared_holdings(), request](int status, const std::string& text) {
                         holdings->Reply(request, {.status = status, .text = text});
                       });
}

// release(start): void - gives the share of the start with that request number back, if it has one.
void Release(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t start = arguments.U32(0);
  if (environment == nullptr || !arguments.ok()) return;
  Runtime::Get().Release({environment->holdings().mailbox, start});
}

// claimConfig(start, text): {status, text} - see Runtime::ClaimConfig.
Napi::Value ClaimConfig(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t start = arguments.U32(0);
  const std::string text = arguments.String(1);
  Napi::Object out = Napi::Object::New(info.Env());
  if (environment == nullptr || !arguments.ok()) return out;
  std::string applied;
  out.Set("status", Runtime::Get().ClaimConfig({environment->holdings().mailbox, start}, text, &applied));
  out.Set("text", applied);
  return out;
}

// settleConfig(start, isApplied): void
void SettleConfig(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t start = arguments.U32(0);
  const bool is_applied = arguments.Bool(1);
  if (environment == nullptr || !arguments.ok()) return;
  Runtime::Get().SettleConfig({environment->holdings().mailbox, start}, is_applied);
}

// cores(): number[] - the CPUs that this process may run on.
Napi::Value Cores(const Napi::CallbackInfo& info) {
  Napi::Array cores = Napi::Array::New(info.Env());
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  uint32_t count = 0;
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &set)) cores.Set(count++, cpu);
  }
  return cores;
}

// spawn(request, name, cpuMask, sqEntries, cqEntries) -> reply a: queue id, b: SPDK thread id
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

// ring(queue): ArrayBuffer
Napi::Value RingBuffer(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t id = arguments.U32(0);
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto queue = QueueOf(*environment, id);
  if (queue == nullptr) return info.Env().Undefined();
  auto* memory = new std::shared_ptr<RingMemory>(queue->memory());
  return Napi::ArrayBuffer::New(
      info.Env(), (*memory)->words, (*memory)->size_bytes,
      [](Napi::BasicEnv, void*, std::shared_ptr<RingMemory>* held) { delete held; }, memory);
}

// exit(request, queue) - closes the queue and its SPDK thread.
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

// kick(queue) - wakes a sleeping reactor.
void Kick(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t id = arguments.U32(0);
  if (environment == nullptr || !arguments.ok()) return;
  if (const auto queue = QueueOf(*environment, id)) queue->Kick();
}

// bdevOpen(request, name, write) -> reply a: descriptor id, text: JSON
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
    if (status != 0) return holdings->Reply(request, status);
    holdings->targets.Put(id, descriptor);
    if (holdings->ended) return descriptor->Close([](int) {});
    holdings->Reply(request, {.a = static_cast<double>(id), .text = descriptor->Describe()});
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

// bdevClose(request, target) - a bdev, a blob or a namespace; waits for its channels.
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

// channelOpen(request, queue, target) -> reply a: slot, b: generation
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

// channelClose(request, queue, slot, generation) - waits for its requests.
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

// pollerRegister(request, queue, id, name, periodMicros)
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

enum class PollerAction : uint32_t { kStats = 0, kPause = 1, kResume = 2, kUnregister = 3 };

// pollerControl(request, queue, id, action) -> reply a: runs, b: busy
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

int AllocateSlab(Holdings& holdings, uint32_t length_bytes, uint32_t alignment, SlabHandle* out) {
  if (!Runtime::Get().running()) return -ESHUTDOWN;
  void* memory = spdk_dma_zmalloc(length_bytes, alignment, nullptr);
  if (memory == nullptr) return -ENOMEM;
  const std::optional<SlabHandle> handle = holdings.slabs->Open(memory, length_bytes);
  if (!handle.has_value()) {
    spdk_dma_free(memory);
    return -ENFILE;
  }
  Runtime::Get().dma_bytes.fetch_add(length_bytes);
  Runtime::Get().slab_count.fetch_add(1);
  *out = *handle;
  return 0;
}

// Zeroing many megabytes takes milliseconds: not on the JavaScript thread.
class DmaAllocation : public Napi::AsyncWorker {
 public:
  DmaAllocation(Napi::Env env, std::shared_ptr<Holdings> holdings, uint32_t request, uint32_t length_bytes, uint32_t alignment)
      : Napi::AsyncWorker(env), holdings_(std::move(holdings)), request_(request), length_bytes_(length_bytes), alignment_(alignment) {}

  void Execute() override {
    SlabHandle handle = {};
    const int status = AllocateSlab(*holdings_, length_bytes_, alignment_, &handle);
    holdings_->Reply(request_, {.status = status,
                                .a = static_cast<double>(handle.slot),
                                .b = static_cast<double>(handle.generation)});
  }
  void OnOK() override {}

 private:
  const std::shared_ptr<Holdings> holdings_;
  const uint32_t request_;
  const uint32_t length_bytes_;
  const uint32_t alignment_;
};

// dmaAllocate(request, lengthBytes, alignmentBytes) -> reply a: slot, b: generation
void DmaAllocate(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t length_bytes = arguments.U32(1);
  const uint32_t alignment = arguments.U32(2);
  if (environment == nullptr || !arguments.ok()) return;
  (new DmaAllocation(info.Env(), environment->shared_holdings(), request, length_bytes, alignment))->Queue();
}

// dmaAllocateNow(lengthBytes, alignmentBytes): [slot, generation] | errno - for what is zeroed in microseconds.
Napi::Value DmaAllocateNow(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t length_bytes = arguments.U32(0);
  const uint32_t alignment = arguments.U32(1);
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  SlabHandle handle = {};
  const int status = AllocateSlab(environment->holdings(), length_bytes, alignment, &handle);
  if (status != 0) return Napi::Number::New(info.Env(), status);
  Napi::Array out = Napi::Array::New(info.Env(), 2);
  out.Set(0u, handle.slot);
  out.Set(1u, handle.generation);
  return out;
}

// dmaView(slot, generation): ArrayBuffer over the memory itself.
Napi::Value DmaView(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto view = environment->holdings().slabs->Find(handle);
  if (!view.has_value()) return info.Env().Undefined();
  return Napi::ArrayBuffer::New(info.Env(), view->base, view->length_bytes);
}

bool DetachView(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsArrayBuffer()) return false;
  Napi::ArrayBuffer buffer = info[index].As<Napi::ArrayBuffer>();
  if (!buffer.IsDetached()) buffer.Detach();
  return true;
}

// dmaFree(slot, generation, view): void - detaches the view; the memory goes back after the last request that uses it.
void DmaFree(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok() || !DetachView(info, 2)) return;
  SlabTable& slabs = *environment->holdings().slabs;
  const SlabTable::CloseResult closed = slabs.Close(handle);
  if (closed.memory != nullptr) FreeSlabMemory(slabs, handle.slot, closed.memory);
}

// dmaRenew(slot, generation, view): number - detaches the view and returns the new generation, 0 when that cannot be.
Napi::Value DmaRenew(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto renewed = environment->holdings().slabs->Renew(handle);
  if (renewed.has_value()) DetachView(info, 2);
  return Napi::Number::New(info.Env(), renewed.has_value() ? renewed->generation : 0);
}

// usage(): what this process holds of SPDK's.
Napi::Value Usage(const Napi::CallbackInfo& info) {
  const Runtime& runtime = Runtime::Get();
  Napi::Object usage = Napi::Object::New(info.Env());
  const auto set = [&usage](const char* name, const std::atomic<int64_t>& value) {
    usage.Set(name, static_cast<double>(value.load()));
  };
  set("threads", runtime.thread_count);
  set("descriptors", runtime.descriptor_count);
  set("channels", runtime.channel_count);
  set("pollers", runtime.poller_count);
  set("blobstores", runtime.blobstore_count);
  set("blobs", runtime.blob_count);
  set("nvmeControllers", runtime.nvme_count);
  set("slabs", runtime.slab_count);
  set("dmaBytes", runtime.dma_bytes);
  return usage;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new InstanceData);
  exports.Set("version", SPDK_VERSION_STRING);
  exports.Set("attach", Napi::Function::New<Attach>(env));
  exports.Set("keepAlive", Napi::Function::New<KeepAlive>(env));
  exports.Set("sharesProcessor", Napi::Function::New<SharesProcessor>(env));
  exports.Set("drain", Napi::Function::New<Drain>(env));
  exports.Set("start", Napi::Function::New<Start>(env));
  exports.Set("release", Napi::Function::New<Release>(env));
  exports.Set("claimConfig", Napi::Function::New<ClaimConfig>(env));
  exports.Set("settleConfig", Napi::Function::New<SettleConfig>(env));
  exports.Set("cores", Napi::Function::New<Cores>(env));
  exports.Set("spawn", Napi::Function::New<Spawn>(env));
  exports.Set("ring", Napi::Function::New<RingBuffer>(env));
  exports.Set("exit", Napi::Function::New<Exit>(env));
  exports.Set("kick", Napi::Function::New<Kick>(env));
  exports.Set("bdevOpen", Napi::Function::New<BdevOpen>(env));
  exports.Set("bdevClose", Napi::Function::New<BdevClose>(env));
  exports.Set("blobstoreCall", Napi::Function::New<CallBlobstores>(env));
  exports.Set("nvmeConnect", Napi::Function::New<NvmeConnect>(env));
  exports.Set("nvmeCall", Napi::Function::New<NvmeCall>(env));
  exports.Set("nvmeOpen", Napi::Function::New<NvmeOpen>(env));
  exports.Set("nvmeAdmin", Napi::Function::New<NvmeAdmin>(env));
  exports.Set("nvmeAbort", Napi::Function::New<NvmeAbort>(env));
  exports.Set("nvmeScan", Napi::Function::New<NvmeScan>(env));
  exports.Set("channelOpen", Napi::Function::New<ChannelOpen>(env));
  exports.Set("channelClose", Napi::Function::New<ChannelClose>(env));
  exports.Set("pollerRegister", Napi::Function::New<PollerRegister>(env));
  exports.Set("pollerControl", Napi::Function::New<PollerControl>(env));
  exports.Set("dmaAllocate", Napi::Function::New<DmaAllocate>(env));
  exports.Set("dmaAllocateNow", Napi::Function::New<DmaAllocateNow>(env));
  exports.Set("dmaView", Napi::Function::New<DmaView>(env));
  exports.Set("dmaFree", Napi::Function::New<DmaFree>(env));
  exports.Set("dmaRenew", Napi::Function::New<DmaRenew>(env));
  exports.Set("usage", Napi::Function::New<Usage>(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)

}  // namespace effect_spdk
