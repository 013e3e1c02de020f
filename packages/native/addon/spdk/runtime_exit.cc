// How SPDK stops: once, when the process exits.
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "blobstore.h"
#include "descriptor.h"
#include "nvme_identity.h"
#include "nvme_thread.h"
#include "queue.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

constexpr auto kExitLimit = std::chrono::seconds(3);

// Whether `path` is a link to `target`.
bool LinksTo(const std::string& path, const std::string& target) {
  char text[sizeof(sockaddr_un::sun_path) + 1];
  const ssize_t length = readlink(path.c_str(), text, sizeof text);
  return length >= 0 && target == std::string(text, static_cast<size_t>(length));
}

}  // namespace

// The process exits. Reactors must not run into the destructors of the libraries under them: stop SPDK in its order,
// and where a device keeps that from ending in time, end the process here, with the status it exits with anyway.
void Runtime::OnExit(int status, void*) {
  if (Get().StopForExit()) return;
  std::fflush(nullptr);
  _exit(status);
}

// True when SPDK has stopped.
bool Runtime::StopForExit() {
  exiting_ = true;
  const auto deadline = std::chrono::steady_clock::now() + kExitLimit;
  std::unique_lock<std::mutex> lock(mutex_);
  {
    const std::lock_guard<std::mutex> shares_lock(shares_mutex_);
    shares_.clear();
  }
  // In the middle of its start nothing can be stopped: that takes a fraction of a second.
  if (state_ == State::kStarting && options_.wait_for_rpc) InitializeWithoutStarter();
  changed_.wait_until(lock, deadline, [this] { return state_ != State::kStarting; });
  if (state_ == State::kRunning) {
    state_ = State::kStopping;
    PostToApp([this] { CloseQueues(); });
  }
  const bool ended = changed_.wait_until(lock, deadline, [this] {
    const State state = state_.load();
    return state == State::kStopped || state == State::kFailed;
  });
  lock.unlock();
  if (ended && app_.joinable()) app_.join();
  if (ended && initializer_.joinable()) initializer_.join();
  RemoveSocket();
  return ended;
}

// What SPDK leaves behind, and what it removes itself when it has the time.
void Runtime::RemoveSocket() {
  // Somebody else may have been quicker to take the name.
  if (!options_.rpc_link.empty() && LinksTo(options_.rpc_link, options_.rpc_socket)) unlink(options_.rpc_link.c_str());
  unlink(options_.rpc_socket.c_str());
  unlink((options_.rpc_socket + ".lock").c_str());
  if (!options_.rpc_directory.empty()) rmdir(options_.rpc_directory.c_str());
}

// The order of an orderly stop, on the app thread: queues with their requests, channels and queue pairs, then NVMe
// controllers with their namespaces, then blobs and blobstores, then descriptors, then the sleepers, then SPDK itself.
void Runtime::CloseQueues() {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    const std::lock_guard<std::mutex> lock(registry_mutex_);
    queues = queues_;
  }
  auto left = std::make_shared<size_t>(queues.size());
  if (*left == 0) return CloseNvme();
  for (const auto& queue : queues) {
    queue->Close([this, left](int) {
      PostToApp([this, left] {
        if (--*left == 0) CloseNvme();
      });
    });
  }
}

void Runtime::CloseNvme() {
  NvmeThread::Get().Shutdown([this] { CloseBlobstores(); });
}

void Runtime::CloseBlobstores() {
  const std::vector<std::shared_ptr<Blobstore>> blobstores = blobstores_;
  auto left = std::make_shared<size_t>(blobstores.size());
  if (*left == 0) return CloseDescriptors();
  for (const auto& blobstore : blobstores) {
    blobstore->Shutdown([this, left] {
      if (--*left == 0) CloseDescriptors();
    });
  }
}

void Runtime::CloseDescriptors() {
  std::vector<std::shared_ptr<Descriptor>> descriptors;
  {
    const std::lock_guard<std::mutex> lock(registry_mutex_);
    descriptors = descriptors_;
  }
  auto left = std::make_shared<size_t>(descriptors.size());
  if (*left == 0) return StopReactors();
  for (const auto& descriptor : descriptors) {
    descriptor->Close([this, left](int) {
      if (--*left == 0) StopReactors();
    });
  }
}

void Runtime::StopReactors() {
  for (spdk_thread* thread : idle_threads_) {
    spdk_thread_send_msg(
        thread,
        [](void* context) {
          auto* runtime = static_cast<Runtime*>(context);
          if (Idle* idle = runtime->IdleOf(spdk_env_get_current_core())) idle->Unregister();
          spdk_thread_exit(spdk_get_thread());
        },
        this);
  }
  if (Idle* idle = IdleOf(app_core_)) idle->Unregister();
  NvmeIdentity::Get().Stop();
  spdk_poller_unregister(&census_poller_);
  spdk_poller_unregister(&app_poller_);
  spdk_app_stop(0);
}

}  // namespace effect_spdk
