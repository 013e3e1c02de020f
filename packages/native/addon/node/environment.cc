#include "environment.h"

#include <utility>

#include "../spdk/nvme_thread.h"
#include "../spdk/runtime.h"

namespace effect_spdk {

void Holdings::Reply(uint32_t request, CallReply reply) const {
  Event event;
  event.id = request;
  event.status = reply.status;
  event.a = reply.a;
  event.b = reply.b;
  event.c = reply.c;
  event.text = std::move(reply.text);
  event.bytes = std::move(reply.bytes);
  mailbox->Send(std::move(event));
}

void Holdings::CloseEverything() {
  ended = true;
  mailbox->Close();
  for (auto& [id, queue] : queues.TakeAll()) queue->Close([](int) {});
  // They close once the queues have put their channels.
  for (auto& [id, target] : targets.TakeAll()) {
    Runtime::Get().PostToApp([target = target] { target->Close([](int) {}); });
  }
  for (auto& [id, blobstore] : blobstores.TakeAll()) {
    Runtime::Get().PostToApp([blobstore = blobstore] { blobstore->Shutdown([] {}); });
  }
  for (auto& [id, controller] : controllers.TakeAll()) {
    NvmeThread::Get().Post([controller = controller] { controller->Close([] {}); });
  }
  if (!Runtime::Get().running()) return;
  for (const SlabHandle handle : slabs->OpenHandles()) {
    const SlabTable::CloseResult closed = slabs->Close(handle);
    if (closed.memory != nullptr) FreeSlabMemory(*slabs, handle.slot, closed.memory);
  }
}

}  // namespace effect_spdk
