#include "blobstore.h"

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "../spdk/blob.h"
#include "../spdk/blobstore_calls.h"
#include "calls.h"

namespace effect_spdk {

namespace {

// Between two events of one call's progress.
constexpr uint64_t kProgressPauseMicros = 10000;

// Names of calls to a blob start with this; the others are to a blobstore.
constexpr char kBlobPrefix[] = "blob.";

void Reply(const Holdings& holdings, uint32_t request, BlobstoreAnswer answer, double a = 0) {
  holdings.Reply(request, {.status = answer.status, .a = a, .text = std::move(answer.text), .bytes = std::move(answer.bytes)});
}

// At most a hundred a second: whoever watches needs no more, and the mailbox has no bound.
Progressed ProgressTo(const std::shared_ptr<Holdings>& holdings, uint32_t request) {
  return [holdings, request, due = uint64_t{0}](uint64_t done) mutable {
    const uint64_t now = spdk_get_ticks();
    if (now < due) return;
    due = now + spdk_get_ticks_hz() / 1000000 * kProgressPauseMicros;
    Event event;
    event.kind = Event::Kind::kProgress;
    event.id = request;
    event.a = static_cast<double>(done);
    holdings->mailbox->Send(std::move(event));
  };
}

bool StartsStore(const std::string& name) { return name == "init" || name == "load" || name == "loadAndGrow"; }

void OpenStore(const std::shared_ptr<Holdings>& holdings, uint32_t request, const BlobstoreCall& call) {
  BlobstoreOptions options = BlobstoreOptionsOf(call);
  options.on_progress = ProgressTo(holdings, request);
  Blobstore::Open(std::move(options), [holdings, request](int status, std::shared_ptr<Blobstore> store) {
    if (status != 0) return Reply(*holdings, request, StatusOnly(status));
    const uint32_t id = holdings->blobstores.Reserve();
    holdings->blobstores.Put(id, store);
    // The environment may have ended between the question and this answer.
    if (holdings->ended) return store->Shutdown([] {});
    Reply(*holdings, request, {}, id);
  });
}

// open [id, clear method] -> a: the blob; numbers: io units
void OpenBlob(const std::shared_ptr<Holdings>& holdings, uint32_t request, const std::shared_ptr<Blobstore>& store,
              const BlobstoreCall& call) {
  spdk_blob_id id = 0;
  const int status = BlobIdOf(call.Number(0), &id);
  if (status != 0) return Reply(*holdings, request, StatusOnly(status));
  const uint32_t slot = holdings->targets.Reserve();
  const auto opened = [holdings, request, slot](int failed, std::shared_ptr<Blob> blob) {
    if (failed != 0) return Reply(*holdings, request, StatusOnly(failed));
    holdings->targets.Put(slot, blob);
    if (holdings->ended) return blob->Close([](int) {});
    BlobstoreAnswer answer;
    QueryBlob(*blob, {.name = "info", .numbers = {}, .texts = {}, .values = {}}, &answer);
    answer.text = "{\"blockSizeBytes\":" + std::to_string(blob->block_size()) +
                  ",\"bufferAlignmentBytes\":" + std::to_string(blob->buffer_alignment()) + "}";
    Reply(*holdings, request, std::move(answer), slot);
  };
  Blob::Open(store, id, static_cast<blob_clear_method>(call.U32(1)), slot, holdings->mailbox, opened);
}

std::shared_ptr<Blob> FindBlob(const Holdings& holdings, uint32_t id) {
  const auto target = holdings.targets.Find(id);
  Blob* const blob = target == nullptr ? nullptr : target->AsBlob();
  return blob == nullptr ? nullptr : std::shared_ptr<Blob>(target, blob);
}

// What SPDK has in memory is answered at once, as long as there is a handle to ask.
void Ask(int refusal, const std::function<bool(BlobstoreAnswer*)>& query, const Answered& answered) {
  BlobstoreAnswer answer = StatusOnly(refusal);
  if (refusal == 0 && !query(&answer)) answer.status = -ENOSYS;
  answered(std::move(answer));
}

// App thread.
void Call(const std::shared_ptr<Holdings>& holdings, uint32_t request, uint32_t id, BlobstoreCall call) {
  const auto answered = [holdings, request](BlobstoreAnswer answer) { Reply(*holdings, request, std::move(answer)); };
  if (StartsStore(call.name)) return OpenStore(holdings, request, call);
  if (call.name.starts_with(kBlobPrefix)) {
    call.name.erase(0, sizeof kBlobPrefix - 1);
    const auto blob = FindBlob(*holdings, id);
    if (blob == nullptr) return answered(StatusOnly(-EBADF));
    if (CallBlob(blob, call, answered)) return;
    return Ask(blob->Refusal(), [&](BlobstoreAnswer* answer) { return QueryBlob(*blob, call, answer); }, answered);
  }
  const auto store = holdings->blobstores.Find(id);
  if (store == nullptr) return answered(StatusOnly(-EBADF));
  if (call.name == "open") return OpenBlob(holdings, request, store, call);
  const bool ends = call.name == "unload" || call.name == "destroy";
  const auto answer_and_forget = [holdings, id, store, answered](BlobstoreAnswer answer) {
    if (store->gone()) holdings->blobstores.Erase(id);
    answered(std::move(answer));
  };
  const Answered& then = ends ? Answered(answer_and_forget) : Answered(answered);
  if (CallBlobstore(store, call, ProgressTo(holdings, request), then)) return;
  Ask(store->Refusal(), [&](BlobstoreAnswer* answer) { return QueryBlobstore(*store, call, answer); }, answered);
}

}  // namespace

void CallBlobstores(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  BlobstoreCall call;
  call.name = arguments.String(1);
  const uint32_t id = arguments.U32(2);
  call.numbers = arguments.Numbers(3);
  call.texts = arguments.Strings(4);
  call.values = arguments.Bytes(5);
  if (environment == nullptr || !arguments.ok()) return;
  const auto holdings = environment->shared_holdings();
  const bool posted = Runtime::Get().PostToApp(
      [holdings, request, id, call = std::move(call)] { Call(holdings, request, id, call); });
  if (!posted) Reply(*holdings, request, StatusOnly(-ESHUTDOWN));
}

}  // namespace effect_spdk
