// Everything that JavaScript may call, and in full what is about its own thread and about SPDK as a whole. Control plane
// only: I/O goes through the rings. Every call returns at once; what takes time is answered through the mailbox, under the
// request number that the caller chose.
#include <napi.h>
#include <sched.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/abi.h"
#include "../spdk/runtime.h"
#include "blobstore.h"
#include "calls.h"
#include "dma.h"
#include "nvme.h"
#include "queues.h"

namespace effect_spdk {
namespace {

// attach(onWake: (events: boolean, sharesProcessor: boolean) => void): void
void Attach(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<InstanceData>();
  if (data->environment != nullptr || !info[0].IsFunction()) {
    Napi::Error::New(info.Env(), "attach takes one function, once").ThrowAsJavaScriptException();
    return;
  }
  auto environment = std::make_shared<Environment>(info[0].As<Napi::Function>());
  if (!info.Env().IsExceptionPending() && environment->Start()) data->environment = std::move(environment);
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

// giveWay(): boolean
Napi::Value GiveWay(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  if (environment == nullptr) return info.Env().Undefined();
  environment->GiveWay();
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
  exports.Set("abi", abi);
  exports.Set("attach", Napi::Function::New<Attach>(env));
  exports.Set("keepAlive", Napi::Function::New<KeepAlive>(env));
  exports.Set("sharesProcessor", Napi::Function::New<SharesProcessor>(env));
  exports.Set("giveWay", Napi::Function::New<GiveWay>(env));
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
  exports.Set("bdevClaim", Napi::Function::New<BdevClaim>(env));
  exports.Set("bdevClaimOf", Napi::Function::New<BdevClaimOf>(env));
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
