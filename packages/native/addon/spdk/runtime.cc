#include "runtime.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "../core/children.h"
#include "blobstore.h"
#include "descriptor.h"
#include "nvme_identity.h"
#include "nvme_thread.h"
#include "queue.h"

namespace effect_spdk {

namespace {

constexpr unsigned long kTimerSlackNanos = 1000;
constexpr uint64_t kThreadListMicros = 100000;
// How much of SPDK's error log a failed start carries as its reason.
constexpr size_t kReasonBytes = 2000;
// spdk_app_start sleeps ten seconds when it is to be more talkative than this on a console.
constexpr int kStartPrintLevel = SPDK_LOG_WARN;
constexpr auto kConnectPause = std::chrono::milliseconds(5);

// SPDK hands every line to a callback, whatever its print level says.
void LogCallback(int level, const char* file, const int line, const char* function, const char* format, va_list args) {
  if (!Runtime::Get().Prints(level)) return;
  char text[2048];
  const int length = std::vsnprintf(text, sizeof text, format, args);
  std::string message(text, length < 0 ? 0 : std::min(static_cast<size_t>(length), sizeof text - 1));
  while (!message.empty() && message.back() == '\n') message.pop_back();
  // What an error says needs no line of the log as well.
  if (level == SPDK_LOG_ERROR && NvmeThread::Reason::Note(message)) return;
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

// SPDK frees the list that it is given.
spdk_pci_addr* CopyForSpdk(const std::vector<spdk_pci_addr>& addresses) {
  auto* copy = static_cast<spdk_pci_addr*>(std::calloc(addresses.size(), sizeof(spdk_pci_addr)));
  if (copy == nullptr) std::abort();
  std::copy(addresses.begin(), addresses.end(), copy);
  return copy;
}

// Connects to a Unix socket. A negative errno when nobody listens.
int Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return -ENAMETOOLONG;
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

}  // namespace

Runtime& Runtime::Get() {
  // Never destroyed: reactors may outlive main's statics.
  static Runtime* const runtime = new Runtime;
  return *runtime;
}

void Runtime::Start(const RuntimeOptions& options, Share share, Started started) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto answer = [&](int status, std::string text) {
    lock.unlock();
    started(status, text);
  };
  switch (state_.load()) {
    case State::kFailed:
    case State::kStopping:
      return answer(-ESHUTDOWN, failure_.empty() ? "SPDK has stopped in this process and cannot start twice" : failure_);
    case State::kStarting:
    case State::kRunning:
      if (options.key != options_.key) return answer(-EEXIST, options_.key);
      break;
    case State::kStopped:
      if (spdk_thread_get_app_thread() != nullptr) {
        return answer(-EALREADY, "another copy of this addon, or another SPDK application, runs in this process");
      }
      break;
  }
  {
    const std::lock_guard<std::mutex> shares_lock(shares_mutex_);
    shares_.push_back(share);
    held_ = true;
  }
  if (state_ == State::kRunning) return answer(0, options_.rpc_socket);
  waiting_.push_back(std::move(started));
  if (state_ == State::kStarting) return;
  options_ = options;
  starter_ = std::move(share);
  adaptive_ = options.adaptive;
  start_level_ = LevelOf(options.log_level);
  // Left over from a start that was refused before SPDK saw it: it has ended, or is about to.
  if (app_.joinable()) app_.join();
  state_ = State::kStarting;
  Children::InheritNothing();
  [[maybe_unused]] static const int registered = on_exit(OnExit, nullptr);
  app_ = std::thread([this] { RunApp(); });
}

void Runtime::Release(const Share& share) {
  ReleaseIf([&share](const Share& held) { return held == share; });
}

void Runtime::ReleaseAll(const std::shared_ptr<Mailbox>& holder) {
  ReleaseIf([&holder](const Share& held) { return held.holder == holder; });
}

int Runtime::ClaimConfig(const Share& share, const std::string& text, std::string* applied) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (config_ == Config::kClaimed) return -EAGAIN;
  if (config_ == Config::kApplied) {
    if (config_text_ == text) return -EALREADY;
    *applied = config_text_;
    return -EEXIST;
  }
  config_ = Config::kClaimed;
  config_claimer_ = share;
  config_text_ = text;
  return 0;
}

void Runtime::SettleConfig(const Share& share, bool is_applied) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (config_ != Config::kClaimed || config_claimer_ != share) return;
  config_ = is_applied ? Config::kApplied : Config::kNone;
  config_claimer_ = {};
}

void Runtime::ReleaseIf(const std::function<bool(const Share&)>& condition) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (config_ == Config::kClaimed && condition(config_claimer_)) config_ = Config::kNone;
  {
    const std::lock_guard<std::mutex> shares_lock(shares_mutex_);
    if (std::erase_if(shares_, condition) == 0) return;
    held_ = !shares_.empty();
  }
  if (state_ == State::kStarting && options_.wait_for_rpc && condition(starter_)) InitializeWithoutStarter();
}

// SPDK waits for a configuration, and whoever was to send it is gone. It cannot start twice, so it must become usable
// for those who come later: say for him, over the socket, that there is no more to come.
void Runtime::InitializeWithoutStarter() {
  if (initializer_.joinable()) return;
  initializer_ = std::thread([this] {
    static constexpr char kRequest[] = R"({"jsonrpc":"2.0","id":1,"method":"framework_start_init"})";
    int fd = -1;
    while (state_ == State::kStarting) {
      if (fd < 0) {
        fd = Connect(options_.rpc_socket);
        if (fd >= 0) (void)!send(fd, kRequest, sizeof kRequest - 1, MSG_NOSIGNAL);
      }
      std::this_thread::sleep_for(kConnectPause);
    }
    if (fd >= 0) close(fd);
  });
}

// The thread that SPDK pins and calls its first reactor.
// SPDK's NVMe bdevs answer a flush without sending it, unless they are told otherwise before the first of them is there. All that
// is called durable above them rests on it. A configuration or bdev_nvme_set_options can turn it off again, by name.
static void SendNvmeFlushes() {
  spdk_bdev_nvme_opts opts = {};
  spdk_bdev_nvme_get_opts(&opts, sizeof opts);
  opts.enable_flush = true;
  if (const int rc = spdk_bdev_nvme_set_opts(&opts); rc != 0) SPDK_ERRLOG("NVMe bdevs will not flush: %s\n", spdk_strerror(-rc));
}

void Runtime::RunApp() {
  pthread_setname_np(pthread_self(), "effect-spdk");
  // Of this thread and of the reactors that it starts: their naps are shorter than the 50 us by which a timer may be late.
  prctl(PR_SET_TIMERSLACK, kTimerSlackNanos);
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
  opts.print_level = static_cast<spdk_log_level>(std::min(start_level_, kStartPrintLevel));
  opts.log = LogCallback;
  // Two busy reactors on one core are a mistake that SPDK's core locks find; adaptive ones share it.
  opts.disable_cpumask_locks = options_.adaptive;
  if (!allowed.empty()) {
    opts.pci_allowed = CopyForSpdk(allowed);
    opts.num_pci_addr = allowed.size();
  } else if (!blocked.empty()) {
    opts.pci_blocked = CopyForSpdk(blocked);
    opts.num_pci_addr = blocked.size();
  }
  // SPDK opens the log itself, but only after it has said hello on stderr.
  spdk_log_set_print_level(opts.print_level);
  spdk_log_open(LogCallback);
  SendNvmeFlushes();
  const int rc = spdk_app_start(&opts, OnStarted, this);
  std::string reason;
  {
    const std::lock_guard<std::mutex> lock(shares_mutex_);
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
    state_ = state;
    if (state != State::kRunning) {
      failure_ = text;
      const std::lock_guard<std::mutex> shares_lock(shares_mutex_);
      shares_.clear();
      held_ = false;
    }
    waiting = std::exchange(waiting_, {});
  }
  changed_.notify_all();
  for (const Started& started : waiting) started(status, text);
}

void Runtime::OnStarted(void* context) { static_cast<Runtime*>(context)->OnAppThread(); }

void Runtime::OnAppThread() {
  // Unless somebody has changed it by RPC meanwhile.
  if (spdk_log_get_print_level() == kStartPrintLevel) {
    spdk_log_set_print_level(static_cast<spdk_log_level>(std::max(start_level_, kStartPrintLevel)));
  }
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
        // Only sleepers need it: a busy core is spared the messages and their memory.
        if (runtime->census_wanted_.exchange(false, std::memory_order_relaxed)) TakeCensus(runtime);
        return static_cast<int>(SPDK_POLLER_IDLE);
      },
      this, kThreadListMicros, "effect_spdk_census");
  TakeCensus(this);
  NvmeIdentity::Get().Start();
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

bool Runtime::IsQueue(uint64_t thread_id) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  return std::any_of(queues_.begin(), queues_.end(), [thread_id](const auto& queue) { return queue->thread_id() == thread_id; });
}

void Runtime::Remember(const std::shared_ptr<Descriptor>& descriptor) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  descriptors_.push_back(descriptor);
}

void Runtime::Forget(const Descriptor* descriptor) {
  const std::lock_guard<std::mutex> lock(registry_mutex_);
  std::erase_if(descriptors_, [descriptor](const auto& known) { return known.get() == descriptor; });
}

void Runtime::Remember(const std::shared_ptr<Blobstore>& blobstore) { blobstores_.push_back(blobstore); }

void Runtime::Forget(const Blobstore* blobstore) {
  std::erase_if(blobstores_, [blobstore](const auto& known) { return known.get() == blobstore; });
}

void Runtime::EnterCore(uint32_t core, Queue* queue) {
  if (Idle* idle = IdleOf(core)) idle->Enter(queue);
}

void Runtime::LeaveCore(uint32_t core, Queue* queue) {
  if (Idle* idle = IdleOf(core)) idle->Leave(queue);
}

bool Runtime::Prints(int level) const {
  // SPDK's own print level starts lower than what was asked for, and counts from then on.
  return level <= spdk_log_get_print_level() || (state_ == State::kStarting && level <= start_level_);
}

void Runtime::SendLog(int level, const char* file, int line, const char* function, std::string message) {
  const std::lock_guard<std::mutex> lock(shares_mutex_);
  if (level == SPDK_LOG_ERROR && state_ == State::kStarting) {
    last_errors_ += (last_errors_.empty() ? "" : "; ") + message;
    if (last_errors_.size() > kReasonBytes) last_errors_.erase(0, last_errors_.size() - kReasonBytes);
  }
  // One SPDK has one log: every environment that shares it would print every line again, so the first one gets it.
  if (shares_.empty()) return;
  Event event;
  event.kind = Event::Kind::kLog;
  event.status = level;
  event.a = line;
  event.text = std::string(file) + '\0' + function + '\0' + message;
  shares_.front().holder->Send(std::move(event));
}

}  // namespace effect_spdk
