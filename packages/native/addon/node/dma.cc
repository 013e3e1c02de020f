#include "dma.h"

#include <cerrno>
#include <memory>
#include <optional>
#include <utility>

#include "calls.h"

namespace effect_spdk {

namespace {

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

// False when JavaScript can still reach what is behind the view; there is an exception then, if it is a view at all.
bool DetachView(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsArrayBuffer()) return false;
  Napi::ArrayBuffer buffer = info[index].As<Napi::ArrayBuffer>();
  if (!buffer.IsDetached()) buffer.Detach();
  return !info.Env().IsExceptionPending();
}

// Whether JavaScript has moved what is behind the view of an open slab to another one (ArrayBuffer.prototype.transfer), which
// nobody can find: there is an exception then.
bool IsMoved(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsArrayBuffer() || !info[index].As<Napi::ArrayBuffer>().IsDetached()) return false;
  Napi::Error::New(info.Env(), "the view of DMA memory was transferred: the memory is kept").ThrowAsJavaScriptException();
  return true;
}

}  // namespace

void DmaAllocate(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const uint32_t request = arguments.U32(0);
  const uint32_t length_bytes = arguments.U32(1);
  const uint32_t alignment = arguments.U32(2);
  if (environment == nullptr || !arguments.ok()) return;
  (new DmaAllocation(info.Env(), environment->shared_holdings(), request, length_bytes, alignment))->Queue();
}

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

Napi::Value DmaView(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  const auto view = environment->holdings().slabs->Find(handle);
  if (!view.has_value()) return info.Env().Undefined();
  return Napi::ArrayBuffer::New(info.Env(), view->base, view->length_bytes);
}

void DmaFree(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok()) return;
  SlabTable& slabs = *environment->holdings().slabs;
  if (slabs.Find(handle).has_value() && IsMoved(info, 2)) return;
  if (!DetachView(info, 2)) return;
  const SlabTable::CloseResult closed = slabs.Close(handle);
  if (closed.memory != nullptr) FreeSlabMemory(slabs, handle.slot, closed.memory);
}

Napi::Value DmaRenew(const Napi::CallbackInfo& info) {
  Environment* environment = Attached(info);
  Arguments arguments(info);
  const SlabHandle handle = {arguments.U32(0), arguments.U32(1)};
  if (environment == nullptr || !arguments.ok()) return info.Env().Undefined();
  SlabTable& slabs = *environment->holdings().slabs;
  if (slabs.Find(handle).has_value() && IsMoved(info, 2)) return info.Env().Undefined();
  const auto renewed = slabs.Renew(handle);
  if (renewed.has_value()) DetachView(info, 2);
  return Napi::Number::New(info.Env(), renewed.has_value() ? renewed->generation : 0);
}

}  // namespace effect_spdk
