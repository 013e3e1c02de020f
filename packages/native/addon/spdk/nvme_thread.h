// The thread on which NVMe controllers live: their connection, admin queues, resets and ends. It is no reactor, because
// SPDK waits in the middle of such calls: for a discovery controller until it is connected, for a changed list of
// namespaces until it is read again. A reactor that waits serves nobody, and an export of this very process that is
// served by it would never answer. I/O has nothing to do with this thread: queue pairs belong to the queues.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core/inbox.h"

namespace effect_spdk {

class NvmeController;

class NvmeThread {
 public:
  static NvmeThread& Get();

  // Any thread. Starts the thread at the first call. False once it has ended.
  bool Post(Inbox::Task task);

  // App thread, when the process exits: disconnects every controller, ends the thread, then runs `done` on the app thread.
  void Shutdown(std::function<void()> done);

  // This thread, below.
  bool stopping() const { return stopping_; }
  void Add(std::shared_ptr<NvmeController> controller) { controllers_.push_back(std::move(controller)); }
  const std::vector<std::shared_ptr<NvmeController>>& controllers() const { return controllers_; }

  // Where SPDK's error lines of this thread go, and not to the log, while a call that may fail is under way: its error
  // says why.
  class Reason {
   public:
    explicit Reason(std::string* text);
    ~Reason();
    Reason(const Reason&) = delete;
    Reason& operator=(const Reason&) = delete;

    // Any thread: SPDK's log. True when somebody wanted the line.
    static bool Note(const std::string& line);
  };

 private:
  NvmeThread() = default;

  void Run();
  uint32_t PollAll();
  void Sleep(uint32_t micros);

  std::mutex mutex_;
  bool started_ = false;
  int event_fd_ = -1;
  Inbox inbox_;
  std::atomic<bool> sleeping_{false};
  bool stopping_ = false;
  std::function<void()> stopped_;
  std::vector<std::shared_ptr<NvmeController>> controllers_;
};

}  // namespace effect_spdk
