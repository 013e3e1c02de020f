// Wakes one JavaScript thread. The side that signals owns nothing of that thread: a signal takes no lock, so that whoever is
// woken in the middle of it, on the same processor, waits for nobody; and it may come after the thread has ended.
#pragma once

#include <napi.h>
#include <uv.h>

#include <atomic>
#include <functional>
#include <memory>

namespace effect_spdk {

// Any thread.
class WakeSignal {
 public:
  WakeSignal();
  ~WakeSignal();
  WakeSignal(const WakeSignal&) = delete;
  WakeSignal& operator=(const WakeSignal&) = delete;

  void Send() const;
  // True when there was one.
  bool Take() const;
  // The thread that is woken: the processor it is on.
  void NoteProcessor();
  int fd() const { return fd_; }

 private:
  const int fd_;
  std::atomic<int> processor_{-1};
};

// The JavaScript thread's end of a signal. Belongs to the thread's event loop, and goes with it.
class WakeWatch {
 public:
  // Calls `on_wake` on this thread for every signal, or several of them. `ended` runs when the environment ends, before
  // anything of it is gone. Null, and an exception that says why, when the system has no more of what this takes; it may be
  // tried again.
  static WakeWatch* Start(Napi::Env env, std::shared_ptr<WakeSignal> signal, std::function<void(Napi::Env)> on_wake,
                          std::function<void()> ended);

  // Whether a signal that may come holds the event loop. Until it is asked for it does not.
  void HoldLoop(bool hold);

 private:
  WakeWatch(Napi::Env env, std::shared_ptr<WakeSignal> signal, std::function<void(Napi::Env)> on_wake,
            std::function<void()> ended);

  static void Throw(Napi::Env env, const char* reason);
  static void OnReadable(uv_poll_t* poll, int status, int events);
  static void OnEnd(napi_async_cleanup_hook_handle hook, void* context);
  static void OnClosed(uv_handle_t* poll);

  const Napi::Env env_;
  const std::shared_ptr<WakeSignal> signal_;
  const std::function<void(Napi::Env)> on_wake_;
  const std::function<void()> ended_;
  uv_poll_t poll_ = {};
  napi_async_cleanup_hook_handle hook_ = nullptr;
};

}  // namespace effect_spdk
