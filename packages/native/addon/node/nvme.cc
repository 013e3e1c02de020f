#include "nvme.h"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "../spdk/nvme_controller.h"
#include "../spdk/nvme_namespace.h"
#include "../spdk/nvme_passthru.h"
#include "../spdk/nvme_thread.h"
#include "calls.h"

namespace effect_spdk {

namespace {

using Controller = std::shared_ptr<NvmeController>;

template <size_t size>
bool CopyField(const Napi::Object& object, const char* name, char (&out)[size]) {
  const std::string text = object.Get(name).ToString().Utf8Value();
  if (text.size() >= size || text.find('\0') != std::string::npos) return false;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return true;
}

bool TransportIdOf(const Napi::Object& object, spdk_nvme_transport_id* id) {
  const std::string type = object.Get("trtype").ToString().Utf8Value();
  const std::string family = object.Get("adrfam").ToString().Utf8Value();
  id->priority = object.Get("priority").ToNumber().Int32Value();
  return spdk_nvme_transport_id_populate_trstring(id, type.c_str()) == 0 &&
         spdk_nvme_transport_id_parse_trtype(&id->trtype, type.c_str()) == 0 &&
         (family.empty() || spdk_nvme_transport_id_parse_adrfam(&id->adrfam, family.c_str()) == 0) &&
         CopyField(object, "traddr", id->traddr) && CopyField(object, "trsvcid", id->trsvcid) &&
         CopyField(object, "subnqn", id->subnqn);
}

std::string FactsOf(const NvmeController::Facts& facts) {
  char text[200];
  std::snprintf(text, sizeof text,
                "{\"cap\":\"%" PRIu64 "\",\"vs\":%" PRIu32 ",\"ioQueues\":%" PRIu32 ",\"maxTransferBytes\":%" PRIu32 "}",
                facts.cap, facts.vs, facts.io_queues, facts.max_transfer_bytes);
  return text;
}

// What an admin command may touch, from here until its completion.
class PinnedData {
 public:
  PinnedData(std::shared_ptr<SlabTable> slabs, uint32_t slot) : slabs_(std::move(slabs)), slot_(slot) {}
  ~PinnedData() {
    if (void* memory = slabs_->Unpin(slot_)) FreeSlabMemory(*slabs_, slot_, memory);
  }
  PinnedData(const PinnedData&) = delete;
  PinnedData& operator=(const PinnedData&) = delete;

 private:
  const std::shared_ptr<SlabTable> slabs_;
  const uint32_t slot_;
};

// Runs `task` with the controller on its thread; answers -EBADF when there is none.
void OnThread(const std::shared_ptr<Holdings>& holdings, uint32_t request, uint32_t id, std::function<void(const Controller&)> task) {
  const auto controller = holdings->controllers.Find(id);
  if (controller == nullptr) return holdings->Reply(request, -EBADF);
  if (!NvmeThread::Get().Post([controller, task = std::move(task)] { task(controller); })) holdings->Reply(request, -ESHUTDOWN);
}

NvmeConnectOptions OptionsOf(const Napi::Object& object, bool* valid) {
  NvmeConnectOptions options;
  const auto number = [&object](const char* name) { return object.Get(name).ToNumber().Uint32Value(); };
  const auto text = [&object](const char* name) { return object.Get(name).ToString().Utf8Value(); };
  const Napi::Value host_id = object.Get("hostId");
  *valid = TransportIdOf(object, &options.transport_id) && host_id.IsTypedArray();
  if (!*valid) return options;
  const auto bytes = host_id.As<Napi::Uint8Array>();
  options.host_id.assign(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
  options.host_nqn = text("hostnqn");
  options.source_address = text("sourceAddress");
  options.source_port = text("sourcePort");
  options.psk = text("psk");
  options.dhchap_key = text("dhchapKey");
  options.dhchap_controller_key = text("dhchapControllerKey");
  options.io_queues = number("ioQueues");
  options.io_queue_size = number("ioQueueSize");
  options.admin_queue_size = number("adminQueueSize");
  options.keep_alive_millis = number("keepAliveMillis");
  options.connect_timeout_millis = number("connectTimeoutMillis");
  options.admin_timeout_millis = number("adminTimeoutMillis");
  options.io_timeout_millis = number("ioTimeoutMillis");
  options.retries = number("retries");
  options.header_digest = object.Get("headerDigest").ToBoolean().Value();
  options.data_digest = object.Get("dataDigest").ToBoolean().Value();
  return options;
}

bool CollectAddress(void* context, const spdk_nvme_transport_id* id, spdk_nvme_ctrlr_opts*) {
  *static_cast<std::string*>(context) += std::string(id->traddr) + "\n";
  return false;
}

}  // namespace

Napi::Value NvmeConnect(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const Napi::Object object = arguments.Object(1);
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto holdings = environment->shared_holdings();
  const uint32_t id = holdings->controllers.Reserve();
  const auto answer = [&info](uint32_t value) { return Napi::Number::New(info.Env(), value); };
  bool valid = false;
  NvmeConnectOptions options = OptionsOf(object, &valid);
  if (!valid || !Runtime::Get().running()) {
    holdings->Reply(request, valid ? -ESHUTDOWN : -EINVAL);
    return answer(id);
  }
  const auto controller = NvmeController::Make(
      std::move(options), id, holdings->mailbox, [holdings, request, id](int status, const std::string& reason) {
        const auto connected = holdings->controllers.Find(id);
        if (status != 0 || connected == nullptr) {
          holdings->controllers.Erase(id);
          return holdings->Reply(request, {.status = status, .a = static_cast<double>(id), .text = reason});
        }
        holdings->Reply(request, {.a = static_cast<double>(id), .text = FactsOf(connected->facts())});
      });
  // The answer may come before this returns, and looks for it.
  holdings->controllers.Put(id, controller);
  controller->Connect();
  return answer(id);
}

void NvmeCall(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t id = arguments.U32(1);
  const std::string name = arguments.String(2);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  OnThread(holdings, request, id, [holdings, request, id, name](const Controller& controller) {
    if (name == "giveUp") {
      controller->GiveUp();
      holdings->Reply(request, 0);
    } else if (name == "disconnect") {
      controller->Close([holdings, request, id] {
        holdings->controllers.Erase(id);
        holdings->Reply(request, 0);
      });
    } else if (name == "reset") {
      controller->Reset([holdings, request](int status, const std::string& reason) {
        holdings->Reply(request, {.status = status, .text = reason});
      });
    } else if (name == "namespaces") {
      std::string text = "[";
      for (const uint32_t nsid : controller->ActiveNamespaces()) {
        if (text.size() > 1) text += ',';
        text += std::to_string(nsid);
      }
      text += ']';
      holdings->Reply(request, {.text = std::move(text)});
    } else {
      holdings->Reply(request, -ENOSYS);
    }
  });
}

void NvmeOpen(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t id = arguments.U32(1);
  const uint32_t nsid = arguments.U32(2);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const uint32_t slot = holdings->targets.Reserve();
  OnThread(holdings, request, id, [holdings, request, slot, nsid](const Controller& controller) {
    controller->Open(nsid, slot, holdings->mailbox, [holdings, request, slot](int status, std::shared_ptr<NvmeNamespace> ns) {
      if (status != 0) return holdings->Reply(request, status);
      holdings->targets.Put(slot, ns);
      // The environment may have ended between the question and this answer.
      if (holdings->ended) return ns->PostRemove();
      holdings->Reply(request, {.a = static_cast<double>(slot), .text = ns->Describe()});
    });
  });
}

void NvmeAdmin(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t id = arguments.U32(1);
  const bool bytes = info[2].IsTypedArray() && info[2].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  const uint32_t slab = arguments.U32(3);
  const uint32_t generation = arguments.U32(4);
  const uint32_t offset = arguments.U32(5);
  NvmeController::AdminCommand command;
  command.length_bytes = arguments.U32(6);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  if (!bytes || info[2].As<Napi::Uint8Array>().ByteLength() != sizeof command.command) {
    return holdings->Reply(request, -EINVAL);
  }
  std::memcpy(&command.command, info[2].As<Napi::Uint8Array>().Data(), sizeof command.command);
  const int refused = CheckAdminCommand(&command.command, command.length_bytes);
  if (refused != 0) return holdings->Reply(request, refused);
  std::shared_ptr<PinnedData> pinned;
  if (command.length_bytes != 0) {
    char* address = nullptr;
    const auto result = holdings->slabs->Pin(slab, generation, offset, command.length_bytes, &address);
    if (result == SlabTable::PinResult::kStale) return holdings->Reply(request, -EBADF);
    pinned = std::make_shared<PinnedData>(holdings->slabs, slab);
    if (result == SlabTable::PinResult::kOutOfRange) return holdings->Reply(request, -EFAULT);
    command.data = address;
  }
  command.done = [holdings, request, pinned = std::move(pinned)](int status, const spdk_nvme_cpl* completion) {
    CallReply reply = {.status = status};
    if (completion != nullptr) reply.bytes.assign(reinterpret_cast<const char*>(completion), sizeof *completion);
    holdings->Reply(request, std::move(reply));
  };
  OnThread(holdings, request, id, [request, command = std::move(command)](const Controller& controller) {
    controller->Admin(request, command);
  });
}

void NvmeAbort(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t id = arguments.U32(0);
  const uint32_t request = arguments.U32(1);
  if (environment == nullptr || !arguments.ok()) return;
  if (const auto controller = environment->holdings().controllers.Find(id)) {
    NvmeThread::Get().Post([controller, request] { controller->AbortAdmin(request); });
  }
}

void NvmeScan(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const std::string type = arguments.String(1);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const bool posted = Runtime::Get().running() && NvmeThread::Get().Post([holdings, request, type] {
    spdk_nvme_transport_id id = {};
    if (spdk_nvme_transport_id_populate_trstring(&id, type.c_str()) != 0 ||
        spdk_nvme_transport_id_parse_trtype(&id.trtype, type.c_str()) != 0) {
      return holdings->Reply(request, -EINVAL);
    }
    std::string found;
    // Nothing is attached, so there is nothing to wait for.
    spdk_nvme_probe_ctx* probe = spdk_nvme_probe_async(&id, &found, CollectAddress, nullptr, nullptr);
    if (probe == nullptr) return holdings->Reply(request, -EIO);
    while (spdk_nvme_probe_poll_async(probe) == -EAGAIN) {
    }
    holdings->Reply(request, {.text = found});
  });
  if (!posted) holdings->Reply(request, -ESHUTDOWN);
}

}  // namespace effect_spdk
