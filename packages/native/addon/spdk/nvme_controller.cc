#include "nvme_controller.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <utility>

#include "nvme_namespace.h"
#include "nvme_thread.h"
#include "runtime.h"

namespace effect_spdk {

namespace {

// Between two looks at a controller that something is expected of, and at one that only sends events and keep-alives.
constexpr uint32_t kBusyMicros = 50;
constexpr uint32_t kIdleMicros = 10000;
constexpr uint32_t kFailedMicros = 100000;

constexpr uint32_t kMostRetries = UINT8_MAX;
// A request of SPDK's own for every command in flight, and for the parts that a large one is cut into.
constexpr uint32_t kFewestRequests = 512;
constexpr uint32_t kRequestsPerEntry = 4;
// Where the caller sets no limit to a command of the admin queue, SPDK's own waits still have one.
constexpr uint32_t kInnerTimeoutMillis = 120000;

template <size_t size>
bool CopyText(const std::string& text, char (&out)[size]) {
  if (text.size() >= size) return false;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return true;
}

uint64_t TicksOf(uint32_t millis) { return spdk_get_ticks_hz() / 1000 * millis; }

// How long SPDK lets a TCP connection take is one number for the process, and none by default: the kernel's two minutes.
// Set while this thread may be opening one.
template <typename Options = spdk_nvme_transport_opts>
class ConnectLimit {
 public:
  explicit ConnectLimit(uint32_t millis) {
    if constexpr (requires(Options& options) { options.tcp_connect_timeout_ms; }) {
      spdk_nvme_transport_get_opts(&before_, sizeof before_);
      Options options = before_;
      if (options.tcp_connect_timeout_ms == 0) options.tcp_connect_timeout_ms = millis;
      spdk_nvme_transport_set_opts(&options, sizeof options);
    }
  }
  ~ConnectLimit() {
    if constexpr (requires(Options& options) { options.tcp_connect_timeout_ms; }) {
      spdk_nvme_transport_set_opts(&before_, sizeof before_);
    }
  }
  ConnectLimit(const ConnectLimit&) = delete;
  ConnectLimit& operator=(const ConnectLimit&) = delete;

 private:
  Options before_ = {};
};

}  // namespace

NvmeController::NvmeController(NvmeConnectOptions options, uint32_t slot, std::shared_ptr<Mailbox> mailbox, Done connected)
    : options_(std::move(options)), slot_(slot), mailbox_(std::move(mailbox)), connected_(std::move(connected)) {}

NvmeController::~NvmeController() = default;

std::shared_ptr<NvmeController> NvmeController::Make(NvmeConnectOptions options, uint32_t slot,
                                                     std::shared_ptr<Mailbox> mailbox, Done connected) {
  return std::shared_ptr<NvmeController>(
      new NvmeController(std::move(options), slot, std::move(mailbox), std::move(connected)));
}

void NvmeController::Connect() {
  Runtime::Get().nvme_count.fetch_add(1);
  const bool posted = NvmeThread::Get().Post([self = shared_from_this()] {
    if (NvmeThread::Get().stopping()) {
      // All that is there has been told to close, and the thread waits for those only.
      return self->BecomeGone(-ESHUTDOWN);
    }
    // Before the thread knows it: what is there already is what it must not be taken for.
    self->Start();
    NvmeThread::Get().Add(self);
  });
  if (!posted) BecomeGone(-ESHUTDOWN);
}

int NvmeController::TakeKey(const std::string& name, spdk_key** out) {
  if (name.empty()) return 0;
  *out = spdk_keyring_get_key(name.c_str());
  if (*out == nullptr) {
    reason_ = "no key of the name " + name;
    return -ENOKEY;
  }
  keys_.push_back(*out);
  return 0;
}

int NvmeController::FillOptions() {
  spdk_nvme_ctrlr_opts& opts = attach_.opts;
  attach_.controller = this;
  spdk_nvme_ctrlr_get_default_ctrlr_opts(&opts, sizeof opts);
  if (!CopyText(options_.host_nqn, opts.hostnqn) || !CopyText(options_.source_address, opts.src_addr) ||
      !CopyText(options_.source_port, opts.src_svcid) || options_.host_id.size() != sizeof opts.extended_host_id) {
    return -EINVAL;
  }
  std::memcpy(opts.extended_host_id, options_.host_id.data(), sizeof opts.extended_host_id);
  opts.num_io_queues = options_.io_queues;
  opts.io_queue_size = options_.io_queue_size;
  opts.io_queue_requests = std::max(kFewestRequests, options_.io_queue_size * kRequestsPerEntry);
  opts.admin_queue_size = static_cast<uint16_t>(std::min<uint32_t>(options_.admin_queue_size, UINT16_MAX));
  opts.keep_alive_timeout_ms = options_.keep_alive_millis;
  opts.transport_retry_count = static_cast<uint8_t>(std::min(options_.retries, kMostRetries));
  opts.header_digest = options_.header_digest;
  opts.data_digest = options_.data_digest;
  if (options_.connect_timeout_millis != 0) {
    opts.fabrics_connect_timeout_us = uint64_t{options_.connect_timeout_millis} * 1000;
  }
  // Of every step of the initialisation, and of what SPDK waits for by itself later.
  const auto limit = [](uint32_t millis) { return millis == 0 ? kInnerTimeoutMillis : millis; };
  opts.admin_timeout_ms = std::min(limit(options_.admin_timeout_millis), limit(options_.connect_timeout_millis));
  // Whoever submitted is told: two lines in the log per failed command would slow the reactor down.
  opts.disable_error_logging = true;
  int rc = TakeKey(options_.psk, &opts.tls_psk);
  if (rc == 0) rc = TakeKey(options_.dhchap_key, &opts.dhchap_key);
  if (rc == 0) rc = TakeKey(options_.dhchap_controller_key, &opts.dhchap_ctrlr_key);
  return rc;
}

// SPDK gives out a controller that this process has already when address, service, subsystem and host are the same as
// text, and two users of one would not expect each other. Zeros before the number of the port make it another text.
bool NvmeController::NameApart() {
  spdk_nvme_transport_id& id = options_.transport_id;
  if (id.adrfam != SPDK_NVMF_ADRFAM_IPV4 && id.adrfam != SPDK_NVMF_ADRFAM_IPV6) return true;
  const std::string port = id.trsvcid;
  // One in any case: other parts of this process write the port without.
  for (size_t zeros = 1;; zeros++) {
    std::string service(zeros, '0');
    service += port;
    if (!CopyText(service, id.trsvcid)) return false;
    const auto& others = NvmeThread::Get().controllers();
    const bool taken = std::any_of(others.begin(), others.end(), [this, &id](const auto& other) {
      return !other->gone() && other->options_.host_nqn == options_.host_nqn &&
             spdk_nvme_transport_id_compare(&other->options_.transport_id, &id) == 0;
    });
    if (!taken) return true;
  }
}

void NvmeController::Start() {
  thread_ = std::this_thread::get_id();
  if (given_up_) return BecomeGone(-ECANCELED);
  int rc = FillOptions();
  if (rc == 0 && !NameApart()) rc = -EMFILE;
  if (rc == 0) {
    const uint32_t millis = options_.connect_timeout_millis;
    deadline_ticks_ = millis == 0 ? UINT64_MAX : spdk_get_ticks() + TicksOf(millis);
    const NvmeThread::Reason reason(&reason_);
    const ConnectLimit limit(options_.connect_timeout_millis);
    // A discovery controller is connected when this returns; the others are not begun.
    starting_ = true;
    probe_ = spdk_nvme_connect_async(&options_.transport_id, &attach_.opts, OnAttached);
    starting_ = false;
    if (probe_ == nullptr) rc = -EIO;
  }
  if (rc != 0) BecomeGone(rc);
}

void NvmeController::OnAttached(void* opts, const spdk_nvme_transport_id*, spdk_nvme_ctrlr* ctrlr,
                                const spdk_nvme_ctrlr_opts*) {
  NvmeController* self = reinterpret_cast<Attach*>(opts)->controller;
  self->ctrlr_ = ctrlr;
  // Before anything was sent: somebody else in this process has it.
  self->borrowed_ = self->starting_;
}

void NvmeController::PollConnect() {
  int rc = 0;
  {
    const NvmeThread::Reason reason(&reason_);
    const ConnectLimit limit(options_.connect_timeout_millis);
    rc = spdk_nvme_probe_poll_async(probe_);
  }
  if (rc == -EAGAIN) {
    if (!given_up_ && spdk_get_ticks() > deadline_ticks_) {
      given_up_ = true;
      FinishConnect(-ETIMEDOUT);
    }
    return;
  }
  probe_ = nullptr;
  if (ctrlr_ == nullptr) return BecomeGone(-EIO);
  if (borrowed_) {
    // A reference, and no more.
    spdk_nvme_detach_async(ctrlr_, &detach_);
    ctrlr_ = nullptr;
    reason_ = "another part of this process has it";
    return BecomeGone(-EBUSY);
  }
  if (given_up_ || closing_) return StartDetach();
  OnReady();
}

void NvmeController::OnReady() {
  spdk_nvme_ctrlr_register_aer_callback(ctrlr_, OnAsyncEvent, this);
  spdk_nvme_ctrlr_set_remove_cb(ctrlr_, OnRemoved, this);
  SetLimits();
  facts_.cap = spdk_nvme_ctrlr_get_regs_cap(ctrlr_).raw;
  facts_.vs = spdk_nvme_ctrlr_get_regs_vs(ctrlr_).raw;
  facts_.io_queues = spdk_nvme_ctrlr_get_opts(ctrlr_)->num_io_queues;
  facts_.max_transfer_bytes = spdk_nvme_ctrlr_get_max_xfer_size(ctrlr_);
  state_ = State::kReady;
  gate_.store(Gate::kOpen, std::memory_order_release);
  FinishConnect(0);
  RunSettled();
}

void NvmeController::FinishConnect(int status) {
  if (const Done connected = std::exchange(connected_, nullptr)) connected(status, reason_);
  reason_.clear();
}

void NvmeController::GiveUp() {
  if (state_ != State::kConnecting || std::exchange(given_up_, true)) return;
  FinishConnect(-ECANCELED);
}

uint32_t NvmeController::Poll() {
  switch (state_) {
    case State::kConnecting:
      PollConnect();
      break;
    case State::kReady:
      PollAdmin();
      if (admin_.empty() && state_ == State::kReady) return kIdleMicros;
      break;
    case State::kFailed:
      return kFailedMicros;
    case State::kDropping:
    case State::kDraining:
      // Its answers, and the ends of its queue pairs, still come this way.
      ProcessAdmin();
      break;
    case State::kDisconnecting:
      PollDisconnect();
      break;
    case State::kReconnecting:
      PollReconnect();
      break;
    case State::kDetaching:
      PollDetach();
      break;
    case State::kGone:
      return UINT32_MAX;
  }
  // One that is to go does not wait for its device: what that still owes is ended with the connection.
  if (state_ == State::kDraining && (closing_ || admin_in_flight_ == 0)) OnDrained();
  return kBusyMicros;
}

void NvmeController::PollAdmin() {
  const int32_t rc = ProcessAdmin();
  HandleAsyncEvents();
  if (removed_) return Fail("the device was removed");
  if (overdue_ || AdminOverdue()) return Fail("a command of the admin queue took longer than its limit");
  if (io_overdue_) return Fail("a command of a queue pair took longer than its limit");
  if (rc < 0) return Fail("the admin queue is lost");
  if (broken_) return Fail("a queue pair is lost");
  SubmitAdmin();
}

void NvmeController::OnAsyncEvent(void* context, const spdk_nvme_cpl* completion) {
  if (spdk_nvme_cpl_is_error(completion)) return;
  static_cast<NvmeController*>(context)->async_events_.push_back(completion->cdw0);
}

void NvmeController::OnRemoved(void* context, spdk_nvme_ctrlr*) { static_cast<NvmeController*>(context)->removed_ = true; }

void NvmeController::HandleAsyncEvents() {
  for (const uint32_t dword0 : std::exchange(async_events_, {})) {
    spdk_nvme_async_event_completion event = {};
    event.raw = dword0;
    // SPDK has read the namespaces again before it said so.
    if (event.bits.async_event_type == SPDK_NVME_ASYNC_EVENT_TYPE_NOTICE &&
        event.bits.async_event_info == SPDK_NVME_ASYNC_EVENT_NS_ATTR_CHANGED) {
      CheckNamespaces();
    }
    Tell(NvmeEvent::kAsync, dword0, {});
  }
}

void NvmeController::Tell(NvmeEvent kind, uint32_t dword0, std::string text) {
  Event event;
  event.kind = Event::Kind::kNvme;
  event.id = slot_;
  event.a = static_cast<double>(kind);
  event.b = dword0;
  event.text = std::move(text);
  mailbox_->Send(std::move(event));
}

}  // namespace effect_spdk
