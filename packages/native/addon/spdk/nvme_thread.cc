#include "nvme_thread.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "nvme_controller.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// How much of SPDK's log an error carries as its reason: the first lines say most.
constexpr size_t kReasonBytes = 300;

thread_local std::string* reason = nullptr;

}  // namespace

NvmeThread::Reason::Reason(std::string* text) { reason = text; }

NvmeThread::Reason::~Reason() { reason = nullptr; }

bool NvmeThread::Reason::Note(const std::string& line) {
  if (reason == nullptr) return false;
  // SPDK begins lines with who they are about, in brackets, and the error knows that.
  size_t start = 0;
  while (line[start] == '[') {
    const size_t end = line.find("] ", start);
    if (end == std::string::npos) break;
    start = end + 2;
  }
  if (reason->size() + line.size() - start > kReasonBytes) return true;
  if (!reason->empty()) reason->append("; ");
  reason->append(line, start);
  return true;
}

NvmeThread& NvmeThread::Get() {
  // Never destroyed: it may outlive main's statics.
  static NvmeThread* const thread = new NvmeThread;
  return *thread;
}

bool NvmeThread::Post(Inbox::Task task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!started_) {
      event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
      if (event_fd_ < 0) return false;
      started_ = true;
      std::thread([this] { Run(); }).detach();
    }
  }
  if (!inbox_.Post(std::move(task))) return false;
  if (sleeping_.load(std::memory_order_seq_cst)) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
  }
  return true;
}

void NvmeThread::Shutdown(std::function<void()> done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!started_) {
      inbox_.Close();
      started_ = true;
      return done();
    }
  }
  Post([this, done = std::move(done)] {
    stopping_ = true;
    stopped_ = done;
    for (const auto& controller : controllers_) controller->Close([] {});
  });
}

void NvmeThread::Run() {
  pthread_setname_np(pthread_self(), "effect-spdk-nvm");
  // Whoever started it may be a reactor, which is pinned to its core.
  cpu_set_t all;
  CPU_ZERO(&all);
  for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) CPU_SET(cpu, &all);
  pthread_setaffinity_np(pthread_self(), sizeof all, &all);
  while (true) {
    inbox_.Run();
    const uint32_t micros = PollAll();
    if (stopping_ && controllers_.empty()) break;
    Sleep(micros);
  }
  for (const auto& task : inbox_.Close()) task();
  Runtime::Get().PostToApp(std::exchange(stopped_, nullptr));
}

uint32_t NvmeThread::PollAll() {
  uint32_t micros = UINT32_MAX;
  for (const auto& controller : controllers_) micros = std::min(micros, controller->Poll());
  std::erase_if(controllers_, [](const auto& controller) { return controller->gone(); });
  return micros;
}

void NvmeThread::Sleep(uint32_t micros) {
  sleeping_.store(true, std::memory_order_seq_cst);
  if (!inbox_.pending()) {
    pollfd event = {event_fd_, POLLIN, 0};
    const timespec timeout = {static_cast<time_t>(micros / 1000000), static_cast<long>(micros % 1000000) * 1000};
    ppoll(&event, 1, micros == UINT32_MAX ? nullptr : &timeout, nullptr);
  }
  sleeping_.store(false, std::memory_order_seq_cst);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t drained = read(event_fd_, &count, sizeof count);
}

}  // namespace effect_spdk
