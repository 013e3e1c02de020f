// What every function that JavaScript calls starts with: its arguments, and the environment it is called from.
#pragma once

#include <napi.h>
#include <sched.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/handover.h"
#include "../spdk/runtime.h"
#include "environment.h"
#include "wake.h"

namespace effect_spdk {

inline constexpr uint32_t kMostSlabs = layout::sqe::no_slot;

// Reads arguments and remembers whether one of them was not what it should be.
class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  uint32_t U32(size_t index) { return static_cast<uint32_t>(Integer(index, UINT32_MAX)); }
  uint64_t U53(size_t index) { return static_cast<uint64_t>(Integer(index, 9007199254740991.0)); }
  bool Bool(size_t index) {
    if (!info_[index].IsBoolean()) return Fail<bool>("boolean", index);
    return info_[index].As<Napi::Boolean>().Value();
  }
  std::string String(size_t index) {
    if (!info_[index].IsString()) return Fail<std::string>("string", index);
    return info_[index].As<Napi::String>().Utf8Value();
  }
  // Of the elements of an array, in UTF-8.
  std::vector<std::string> Strings(size_t index) {
    if (!info_[index].IsArray()) return Fail<std::vector<std::string>>("array", index);
    const Napi::Array array = info_[index].As<Napi::Array>();
    std::vector<std::string> list;
    for (uint32_t i = 0; i < array.Length(); i++) list.push_back(array.Get(i).ToString().Utf8Value());
    return list;
  }
  std::vector<double> Numbers(size_t index) {
    if (!info_[index].IsArray()) return Fail<std::vector<double>>("array", index);
    const Napi::Array array = info_[index].As<Napi::Array>();
    std::vector<double> list;
    for (uint32_t i = 0; i < array.Length(); i++) {
      const double number = array.Get(i).ToNumber().DoubleValue();
      if (!(number >= 0 && number <= 9007199254740991.0 && std::floor(number) == number)) {
        return Fail<std::vector<double>>("array of unsigned integers", index);
      }
      list.push_back(number);
    }
    return list;
  }
  // Copies of the elements of an array of Uint8Arrays.
  std::vector<std::string> Bytes(size_t index) {
    if (!info_[index].IsArray()) return Fail<std::vector<std::string>>("array", index);
    const Napi::Array array = info_[index].As<Napi::Array>();
    std::vector<std::string> list;
    for (uint32_t i = 0; i < array.Length(); i++) {
      const Napi::Value value = array.Get(i);
      if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
        return Fail<std::vector<std::string>>("array of Uint8Arrays", index);
      }
      const auto bytes = value.As<Napi::Uint8Array>();
      list.emplace_back(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
    }
    return list;
  }
  Napi::Object Object(size_t index) {
    if (!info_[index].IsObject()) {
      Fail<int>("object", index);
      return Napi::Object::New(info_.Env());
    }
    return info_[index].As<Napi::Object>();
  }

  // False when a JavaScript exception is pending.
  bool ok() const { return ok_; }

 private:
  double Integer(size_t index, double most) {
    const double value = info_[index].IsNumber() ? info_[index].As<Napi::Number>().DoubleValue() : -1;
    if (!(value >= 0 && value <= most && std::floor(value) == value)) return Fail<double>("unsigned integer", index);
    return value;
  }

  template <typename T>
  T Fail(const char* expected, size_t index) {
    if (ok_) {
      Napi::TypeError::New(info_.Env(), std::string("argument ") + std::to_string(index) + " is not a valid " + expected)
          .ThrowAsJavaScriptException();
    }
    ok_ = false;
    return T{};
  }

  const Napi::CallbackInfo& info_;
  bool ok_ = true;
};

class Environment {
 public:
  explicit Environment(const Napi::Function& on_wake)
      : on_wake_(Napi::Persistent(on_wake)), context_(on_wake.Env(), "effect-spdk"), signal_(std::make_shared<WakeSignal>()) {
    holdings_ = std::make_shared<Holdings>();
    holdings_->mailbox = std::make_shared<Mailbox>([signal = signal_] { signal->Send(); });
    holdings_->slabs = std::make_shared<SlabTable>(kMostSlabs);
  }

  // False, and an exception, when this thread cannot be woken.
  bool Start() {
    watch_ = WakeWatch::Start(on_wake_.Env(), signal_, [this](Napi::Env env) { OnWake(env); }, [this] { End(); });
    return watch_ != nullptr;
  }

  Holdings& holdings() { return *holdings_; }
  const std::shared_ptr<Holdings>& shared_holdings() { return holdings_; }
  WakeWatch& watch() { return *watch_; }
  // Whether one of its reactors runs on the processor that this thread is on now: while either works the other waits.
  bool SharesProcessor() const {
    const int processor = sched_getcpu();
    return holdings_->queues.Any([processor](const Queue& queue) { return queue.processor() == processor; });
  }
  // Lets them have it, and returns when they let go of it.
  void GiveWay() {
    handover_.Give(holdings_->queues, sched_getcpu(), [] { sched_yield(); });
  }

 private:
  void OnWake(Napi::Env env) {
    const Napi::Value arguments[] = {Napi::Boolean::New(env, holdings_->mailbox->pending()),
                                     Napi::Boolean::New(env, SharesProcessor())};
    on_wake_.MakeCallback(env.Global(), {arguments[0], arguments[1]}, context_);
  }

  void End() {
    holdings_->CloseEverything();
    Runtime::Get().ReleaseAll(holdings_->mailbox);
  }

  Napi::FunctionReference on_wake_;
  Napi::AsyncContext context_;
  std::shared_ptr<WakeSignal> signal_;
  WakeWatch* watch_ = nullptr;
  std::shared_ptr<Holdings> holdings_;
  Handover<Queue> handover_;
};

struct InstanceData {
  std::shared_ptr<Environment> environment;
};

// The attached environment, or an exception and null.
inline Environment* Attached(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<InstanceData>();
  if (data != nullptr && data->environment != nullptr) return data->environment.get();
  Napi::Error::New(info.Env(), "attach() first").ThrowAsJavaScriptException();
  return nullptr;
}

}  // namespace effect_spdk
