#include "runtime.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "descriptor.h"
#include "queue.h"

namespace effect_spdk {

namespace {

constexpr auto kExitLimit = std::chrono::seconds(3);
constexpr uint64_t kThreadListMicros = 100000;
// How much of SPDK's error log a failed start carries as its reason.
constexpr size_t kReasonBytes = 2000;

// SPDK hands every line to a callback, whatever its print level says.
void LogCallback(int level, const char* file, const int line, const char* function, const char* format, va_list args) {
  if (level > spdk_log_get_print_level()) return;
  char text[2048];
  const int length = std::vsnprintf(text, sizeof text, format, args);
  std::string message(text, length < 0 ? 0 : std::min(static_cast<size_t>(length), sizeof text - 1));
  while (!message.empty() && message.back() == '\n') message.pop_back();
  Runtime::Get().SendLog(level, file == nullptr ? "" : file, line, function == nullptr ? "" : function, std::move(message));
}

spdk_log_level LevelOf(const std::string& name) {
  if (name == "disabled") return SPDK_LOG_DISABLED;
  if (name == "error") return SPDK_LOG_ERROR;
  if (name == "warning") return SPDK_LOG_WARN;
  if (name == "info") return SPDK_LOG_INFO;
  if (name == "debug") return SPDK_LOG_DEBUG;
  return SPDK_LOG_NOTICE;
}

bool ParsePci(const std::vector<std::string>& names, std::vector<spdk_pci_addr>* out) {
  for (const std::string& name : names) {
    spdk_pci_addr address = {};
    if (spdk_pci_addr_parse(&address, name.c_str()) != 0) return false;
    out->push_back(address);
  }
  return true;
}

// Which threads run where: every thread notes itself.
struct ThreadCensus {
  std::mutex mutex;
  std::map<uint32_t, std::vector<uint64_t>> by_core;
  std::function<void(std::map<uint32_t, std::vector<uint64_t>>)> done;
};

void NoteThread(void* context) {
  auto* census = static_cast<ThreadCensus*>(context);
  const std::lock_guard<std::mutex> lock(census->mutex);
  census->by_core[spdk_env_get_current_core()].push_back(spdk_thread_get_id(spdk_get_thread()));
}

void FinishCensus(void* context) {
  const std::unique_ptr<ThreadCensus> census(static_cast<ThreadCensus*>(context));
  census->done(std::move(census->by_core));
}

}  // namespace

Runtime& Runtime::Get() {
  // Never destroyed: reactors may outlive main's statics.
  static Runtime* const runtime = new Runtime;
  return *runtime;
}

void Runtime::Start(const RuntimeOptions& options, std::shared_ptr<Mailbox> logs, Started started) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto refuse = [&](int status, std::string text) {
    lock.unlock();
    started(status, text);
  };
  switch (state_.load()) {
    case State::kFailed:
    case State::kStopping:
      return refuse(-ESHUTDOWN, failure_.empty() ? "SPDK has stopped in this process and cannot start twice" : failure_);
    case State::kStarting:
    case State::kRunning:
      if (options.key != options_.key) return refuse(-EEXIST, options_.key);
      break;
    case State::kStopped:
      break;
  }
  references_.fetch_add(1);
  {
    const std::lock_guard<std::mutex> log_lock(log_mutex_);
    logs_.push_back(std::move(logs));
  }
  if (state_ == State::kRunning) return refuse(0, options_.rpc_socket);
  waiting_.push_back(std::move(started));
  if (state_ == State::kStarting) return;
  options_ = options;
  adaptive_ = options.adaptive;
  if (app_.joinable()) app_.join();
  state_ = State::kStarting;
  on_exit(OnExit, nullptr);
  app_ = std::thread([this] { RunApp(); });
}

void Runtime::Release(const std::shared_ptr<Mailbox>& logs) {
  references_.fetch_sub(1);
  const std::lock_guard<std::mutex> lock(log_mutex_);
  const auto found = std::find(logs_.begin(), logs_.end(), logs);
  if (found != logs_.end()) logs_.erase(found);
}

// The thread that SPDK pins and calls its first reactor.
void Runtime::RunApp() {
  pthread_setname_np(pthread_self(), "effect-spdk");
  spdk_app_opts opts = {};
  spdk_app_opts_init(&opts, sizeof opts);
  std::vector<spdk_pci_addr> allowed;
  std::vector<spdk_pci_addr> blocked;
  if (!ParsePci(options_.pci_allowed, &allowed) || !ParsePci(options_.pci_blocked, &blocked)) {
    return FinishStart(State::kStopped, -EINVAL, "malformed PCI address");
  }
  opts.name = options_.name.c_str();
  opts.reactor_mask = options_.core_list.c_str();
  opts.rpc_addr = options_.rpc_socket.c_str();
  opts.mem_size = options_.memory_mib;
  opts.no_huge = !options_.hugepages;
  opts.no_pci = !options_.pci;
  opts.shm_id = -1;
  opts.disable_signal_handlers = true;
  opts.delay_subsystem_init = options_.wait_for_rpc;
  opts.print_level = LevelOf(options_.log_level);
  opts.log = LogCallback;
  // Two busy reactors on one core are a mistake that SPDK's core locks find; adaptive ones share it.
  opts.disable_cpumask_locks = options_.adaptive;
  if (!allowed.empty()) {
    opts.pci_allowed = allowed.data();
    opts.num_pci_addr = allowed.size();
  } else if (!blocked.empty()) {
    opts.pci_blocked = blocked.data();
    opts.num_pci_addr = blocked.size();
  }
  // SPDK opens the log itself, but only after it has said hello on stderr.
  spdk_log_set_print_level(LevelOf(options_.log_level));
  spdk_log_open(LogCallback);
  const int rc = spdk_app_start(&opts, OnStarted, this);
  std::string reason;
  {
    const std::lock_guard<std::mutex> lock(log_mutex_);
    reason = last_errors_;
  }
  // Reached when the start failed or the process exits.
  if (state_ != State::kStopping || rc != 0) {
    return FinishStart(State::kFailed, rc == 0 ? -ESHUTDOWN : rc > 0 ? -rc : rc, reason.empty() ? "spdk_app_start failed" : reason);
  }
  spdk_app_fini();
  FinishStart(State::kFailed, -ESHUTDOWN, "SPDK has stopped in this process and cannot start twice");
}

void Runtime::FinishStart(State state, int status, const std::string& text) {
  std::vector<Started> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool was_starting = state_ == State::kStarting;
    state_ = state;
    if (state != State::kRunning) {
      failure_ = text;
      if (was_starting) references_.store(0);
    }
    waiting = std::exchange(waiting_, {});
  }
  stopped_.notify_all();
  for (const Started& started : waiting) started(status, text);
}

void Runtime::OnStarted(void* context) { static_cast<Runtime*>(context)->OnAppThread(); }

void Runtime::OnAppThread() {
  app_core_ = spdk_env_get_current_core();
  uint32_t core = 0;
  SPDK_ENV_FOREACH_CORE(core) { idle_[core] = std::make_unique<Idle>(core); }
  SPDK_ENV_FOREACH_CORE(core) {
    Idle* idle = idle_[core].get();
    if (core == app_core_) {
      idle->Register();
      continue;
    }
    spdk_cpuset mask;
    spdk_cpuset_zero(&mask);
    spdk_cpuset_set_cpu(&mask, core, true);
    spdk_thread* thread = spdk_thread_create(("effect_spdk_idle_" + std::to_string(core)).c_str(), &mask);
    if (thread == nullptr) continue;  // that reactor polls without sleep
    idle_threads_.push_back(thread);
    spdk_thread_send_msg(thread, [](void* context) { static_cast<Idle*>(context)->Register(); }, idle);
  }
  app_poller_ = spdk_poller_register_named(PollApp, this, 0, "effect_spdk_control");
  census_poller_ = spdk_poller_register_named(
      [](void* context) {
        auto* runtime = static_cast<Runtime*>(context);
        auto* census = new ThreadCensus;
        census->done = [runtime](std::map<uint32_t, std::vector<uint64_t>> by_core) {
          for (const auto& [at, idle] : runtime->idle_) idle->SetThreads(by_core[at]);
        };
        spdk_for_each_thread(NoteThread, census, FinishCensus);
        return static_cast<int>(SPDK_POLLER_IDLE);
      },
      this, kThreadListMicros, "effect_spdk_census");
  FinishStart(State::kRunning, 0, options_.rpc_socket);
}

int Runtime::PollApp(void* context) {
  return static_cast<Runtime*>(context)->app_inbox_.Run() != 0 ? SPDK_POLLER_BUSY : SPDK_POLLER_IDLE;
}

Idle* Runtime::IdleOf(uint32_t core) {
  const auto found = idle_.find(core);
  return found == idle_.end() ? nullptr : found->second.get();
}

bool Runtime::PostToApp(Inbox::Task task) {
  if (state_ != State::kRunning && state_ != State::kStopping) return false;
  if (!app_inbox_.Post(std::move(task))) return false;
  if (Idle* idle = IdleOf(app_core_)) idle->Kick();
  return true;
}

void Runtime::KickThread(Queue* queue) {
  if (Idle* idle = IdleOf(queue->core())) idle->Kick();
}

void Runtime::Remember(const std::shared_ptr<Queue>& queue) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  queues_.push_back(queue);
}

void Runtime::Forget(const Queue* queue) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  std::erase_if(queues_, [queue](const auto& known) { return known.get() == queue; });
}

void Runtime::Remember(const std::shared_ptr<Descriptor>& descriptor) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  descriptors_.push_back(descriptor);
}

void Runtime::Forget(const Descriptor* descriptor) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  std::erase_if(descriptors_, [descriptor](const auto& known) { return known.get() == descriptor; });
}

void Runtime::EnterCore(uint32_t core, Queue* queue) {
  if (Idle* idle = IdleOf(core)) idle->Enter(queue);
}

void Runtime::LeaveCore(uint32_t core, Queue* queue) {
  if (Idle* idle = IdleOf(core)) idle->Leave(queue);
}

void Runtime::SendLog(int level, const char* file, int line, const char* function, std::string message) {
  const std::lock_guard<std::mutex> lock(log_mutex_);
  if (level == SPDK_LOG_ERROR && state_ == State::kStarting) {
    last_errors_ += (last_errors_.empty() ? "" : "; ") + message;
    if (last_errors_.size() > kReasonBytes) last_errors_.erase(0, last_errors_.size() - kReasonBytes);
  }
  // One SPDK has one log: every environment that shares it would print every line again, so the first one gets it.
  if (logs_.empty()) return;
  Event event;
  event.kind = Event::Kind::kLog;
  event.status = level;
  event.a = line;
  event.text = std::string(file) + '\0' + function + '\0' + message;
  logs_.front()->Send(std::move(event));
}

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
  std::unique_lock<std::mutex> lock(mutex_);
  {
    const std::lock_guard<std::mutex> log_lock(log_mutex_);
    logs_.clear();
  }
  if (state_ == State::kRunning) {
    state_ = State::kStopping;
    lock.unlock();
    PostToApp([this] { CloseQueues(); });
    lock.lock();
  }
  const bool ended = stopped_.wait_for(lock, kExitLimit, [this] {
    const State state = state_.load();
    return state == State::kStopped || state == State::kFailed;
  });
  lock.unlock();
  if (ended && app_.joinable()) app_.join();
  RemoveSocket();
  return ended;
}

// What SPDK leaves behind, and what it removes itself when it has the time.
void Runtime::RemoveSocket() {
  if (!options_.rpc_link.empty()) unlink(options_.rpc_link.c_str());
  unlink(options_.rpc_socket.c_str());
  unlink((options_.rpc_socket + ".lock").c_str());
  if (!options_.rpc_directory.empty()) rmdir(options_.rpc_directory.c_str());
}

// The order of an orderly stop, on the app thread: queues with their requests and channels, then descriptors, then the
// sleepers, then SPDK itself.
void Runtime::CloseQueues() {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    const std::lock_guard<std::mutex> lock(registry_mutex_);
    queues = queues_;
  }
  auto left = std::make_shared<size_t>(queues.size());
  if (*left == 0) return CloseDescriptors();
  for (const auto& queue : queues) {
    queue->Close([this, left](int) {
      PostToApp([this, left] {
        if (--*left == 0) CloseDescriptors();
      });
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
    descriptor->Close([this, left] {
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
  spdk_poller_unregister(&census_poller_);
  spdk_poller_unregister(&app_poller_);
  spdk_app_stop(0);
}

}  // namespace effect_spdk
