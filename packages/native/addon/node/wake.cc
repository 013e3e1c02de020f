#include "wake.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

namespace effect_spdk {

WakeSignal::WakeSignal() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

WakeSignal::~WakeSignal() {
  if (fd_ >= 0) close(fd_);
}

void WakeSignal::Send() const {
  const uint64_t one = 1;
  // A full counter wakes as well as a written one.
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);
  // A thread that waits for this very processor does not run before this one lets it.
  if (sched_getcpu() == processor_.load(std::memory_order_relaxed)) sched_yield();
}

void WakeSignal::NoteProcessor() { processor_.store(sched_getcpu(), std::memory_order_relaxed); }

bool WakeSignal::Take() const {
  uint64_t count = 0;
  return read(fd_, &count, sizeof count) == static_cast<ssize_t>(sizeof count);
}

WakeWatch::WakeWatch(Napi::Env env, std::shared_ptr<WakeSignal> signal, std::function<void(Napi::Env)> on_wake,
                     std::function<void()> ended)
    : env_(env), signal_(std::move(signal)), on_wake_(std::move(on_wake)), ended_(std::move(ended)) {}

WakeWatch* WakeWatch::Start(Napi::Env env, std::shared_ptr<WakeSignal> signal, std::function<void(Napi::Env)> on_wake,
                            std::function<void()> ended) {
  uv_loop_t* loop = nullptr;
  if (signal->fd() < 0 || napi_get_uv_event_loop(env, &loop) != napi_ok) {
    Throw(env, signal->fd() < 0 ? "eventfd gives none" : "it has no event loop");
    return nullptr;
  }
  std::unique_ptr<WakeWatch> watch(new WakeWatch(env, std::move(signal), std::move(on_wake), std::move(ended)));
  watch->poll_.data = watch.get();
  const int made = uv_poll_init(loop, &watch->poll_, watch->signal_->fd());
  if (made != 0) {
    Throw(env, uv_strerror(made));
    return nullptr;
  }
  // From here on the loop owns it.
  WakeWatch* const started = watch.release();
  const int polls = uv_poll_start(&started->poll_, UV_READABLE, OnReadable);
  if (polls == 0 && napi_add_async_cleanup_hook(env, OnEnd, started, &started->hook_) == napi_ok) {
    uv_unref(reinterpret_cast<uv_handle_t*>(&started->poll_));
    return started;
  }
  Throw(env, polls == 0 ? "the end of this thread cannot be watched" : uv_strerror(polls));
  uv_close(reinterpret_cast<uv_handle_t*>(&started->poll_), OnClosed);
  return nullptr;
}

void WakeWatch::Throw(Napi::Env env, const char* reason) {
  Napi::Error::New(env, std::string("no event to wake this thread by: ") + reason).ThrowAsJavaScriptException();
}

void WakeWatch::HoldLoop(bool hold) {
  auto* handle = reinterpret_cast<uv_handle_t*>(&poll_);
  if (hold) {
    uv_ref(handle);
  } else {
    uv_unref(handle);
  }
}

void WakeWatch::OnReadable(uv_poll_t* poll, int status, int) {
  auto* watch = static_cast<WakeWatch*>(poll->data);
  const Napi::HandleScope scope(watch->env_);
  // An error has stopped the poll, and without it nobody is woken.
  if (status != 0) status = uv_poll_start(poll, UV_READABLE, OnReadable);
  if (status != 0) Throw(watch->env_, uv_strerror(status));
  watch->signal_->NoteProcessor();
  if (status == 0 && watch->signal_->Take()) watch->on_wake_(watch->env_);
  if (!watch->env_.IsExceptionPending()) return;
  const Napi::Error error = watch->env_.GetAndClearPendingException();
  napi_fatal_exception(watch->env_, error.Value());
}

void WakeWatch::OnEnd(napi_async_cleanup_hook_handle, void* context) {
  auto* watch = static_cast<WakeWatch*>(context);
  watch->ended_();
  uv_close(reinterpret_cast<uv_handle_t*>(&watch->poll_), OnClosed);
}

void WakeWatch::OnClosed(uv_handle_t* poll) {
  const std::unique_ptr<WakeWatch> watch(static_cast<WakeWatch*>(poll->data));
  if (watch->hook_ != nullptr) napi_remove_async_cleanup_hook(watch->hook_);
}

}  // namespace effect_spdk
