#include "nvme_identity.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

// As of SPDK v26.05, which has them first. Null in an SPDK that has not: then nobody watches.
extern "C" {
struct spdk_nvme_path_id;
__attribute__((weak)) spdk_bdev_nvme_ctrlr* spdk_bdev_nvme_first_bdev_ctrlr(void);
__attribute__((weak)) spdk_bdev_nvme_ctrlr* spdk_bdev_nvme_next_bdev_ctrlr(spdk_bdev_nvme_ctrlr* before);
__attribute__((weak)) const char* spdk_bdev_nvme_ctrlr_get_name(spdk_bdev_nvme_ctrlr* group);
__attribute__((weak)) spdk_nvme_ctrlr* spdk_bdev_nvme_ctrlr_first_ctrlr(spdk_bdev_nvme_ctrlr* group);
__attribute__((weak)) spdk_nvme_ctrlr* spdk_bdev_nvme_ctrlr_next_ctrlr(spdk_bdev_nvme_ctrlr* group,
                                                                       spdk_nvme_ctrlr* before);
__attribute__((weak)) int spdk_bdev_nvme_delete(const char* name, const spdk_nvme_path_id* path,
                                                void (*done)(void* context, int status), void* context);
}

namespace effect_spdk {

namespace {

// How soon a bdev that is new is known. It takes longer than this to connect again.
constexpr uint64_t kRefreshMicros = 5000;

// A `spdk_nvme_path_id` that names no path, and so all of them. Its members are no part of SPDK's public headers: a transport id, a
// host id, and a few words.
alignas(64) constexpr std::array<uint8_t, 4 * sizeof(spdk_nvme_transport_id)> kAnyPath{};

bool IsZero(const std::array<uint8_t, 16>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

}  // namespace

NvmeIdentity& NvmeIdentity::Get() {
  // Never destroyed: it may outlive main's statics.
  static NvmeIdentity* const identity = new NvmeIdentity;
  return *identity;
}

void NvmeIdentity::Start() {
  if (spdk_bdev_nvme_first_bdev_ctrlr == nullptr || spdk_bdev_nvme_delete == nullptr) return;
  refresh_poller_ = spdk_poller_register_named(OnRefresh, this, kRefreshMicros, "effect_spdk_nvme_volumes");
}

void NvmeIdentity::Stop() {
  spdk_poller_unregister(&look_poller_);
  spdk_poller_unregister(&refresh_poller_);
  known_.clear();
}

int NvmeIdentity::OnRefresh(void* context) {
  static_cast<NvmeIdentity*>(context)->Refresh();
  return SPDK_POLLER_IDLE;
}

// At every turn of the app thread, on which SPDK connects again: one step of that at a turn, and several steps between the
// identifiers and the first queue pair, so that none of them is connected before this has looked.
int NvmeIdentity::OnLook(void* context) {
  return static_cast<NvmeIdentity*>(context)->Look() ? SPDK_POLLER_BUSY : SPDK_POLLER_IDLE;
}

NvmeIds NvmeIds::Of(spdk_nvme_ns* ns) {
  NvmeIds ids;
  if (const spdk_uuid* uuid = spdk_nvme_ns_get_uuid(ns); uuid != nullptr) {
    std::memcpy(ids.uuid.data(), uuid, ids.uuid.size());
  }
  const spdk_nvme_ns_data* data = spdk_nvme_ns_get_data(ns);
  std::memcpy(ids.nguid.data(), data->nguid, ids.nguid.size());
  ids.eui64 = data->eui64;
  ids.block_bytes = spdk_nvme_ns_get_extended_sector_size(ns);
  return ids;
}

bool NvmeIds::DiffersFrom(const NvmeIds& other) const {
  return (!IsZero(uuid) && !IsZero(other.uuid) && uuid != other.uuid) ||
         (!IsZero(nguid) && !IsZero(other.nguid) && nguid != other.nguid) ||
         (eui64 != 0 && other.eui64 != 0 && eui64 != other.eui64) ||
         (block_bytes != 0 && other.block_bytes != 0 && block_bytes != other.block_bytes);
}

bool NvmeIdentity::Look() {
  for (auto* group = spdk_bdev_nvme_first_bdev_ctrlr(); group != nullptr; group = spdk_bdev_nvme_next_bdev_ctrlr(group)) {
    for (auto* ctrlr = spdk_bdev_nvme_ctrlr_first_ctrlr(group); ctrlr != nullptr;
         ctrlr = spdk_bdev_nvme_ctrlr_next_ctrlr(group, ctrlr)) {
      for (Known& known : known_) {
        // Asking for one that is not active would make it.
        if (known.ctrlr != ctrlr || !spdk_nvme_ctrlr_is_active_ns(ctrlr, known.nsid)) continue;
        if (!known.ids.DiffersFrom(NvmeIds::Of(spdk_nvme_ctrlr_get_ns(ctrlr, known.nsid)))) continue;
        // Whatever SPDK tries until the controller is gone finds the same again.
        if (!spdk_nvme_ctrlr_is_failed(ctrlr)) spdk_nvme_ctrlr_fail(ctrlr);
        if (known.given_up) continue;
        GiveUp(group, &known);
        // The list may be another now.
        return true;
      }
    }
  }
  return false;
}

// The whole controller: its bdevs are removed, and what waits for it ends.
void NvmeIdentity::GiveUp(spdk_bdev_nvme_ctrlr* group, Known* known) {
  const std::string name = spdk_bdev_nvme_ctrlr_get_name(group);
  known->given_up = true;
  SPDK_ERRLOG("%sn%" PRIu32 ": the namespace is another volume now, and the controller is detached\n", name.c_str(),
              known->nsid);
  const auto* any = reinterpret_cast<const spdk_nvme_path_id*>(kAnyPath.data());
  const int status = spdk_bdev_nvme_delete(name.c_str(), any, nullptr, nullptr);
  if (status != 0) SPDK_ERRLOG("%s: cannot be detached: %s\n", name.c_str(), spdk_strerror(-status));
}

void NvmeIdentity::Refresh() {
  for (Known& known : known_) known.seen = false;
  for (auto* group = spdk_bdev_nvme_first_bdev_ctrlr(); group != nullptr; group = spdk_bdev_nvme_next_bdev_ctrlr(group)) {
    const std::string prefix = std::string(spdk_bdev_nvme_ctrlr_get_name(group)) + "n";
    for (auto* ctrlr = spdk_bdev_nvme_ctrlr_first_ctrlr(group); ctrlr != nullptr;
         ctrlr = spdk_bdev_nvme_ctrlr_next_ctrlr(group, ctrlr)) {
      for (uint32_t nsid = spdk_nvme_ctrlr_get_first_active_ns(ctrlr); nsid != 0;
           nsid = spdk_nvme_ctrlr_get_next_active_ns(ctrlr, nsid)) {
        spdk_bdev* bdev = spdk_bdev_get_by_name((prefix + std::to_string(nsid)).c_str());
        if (bdev == nullptr) continue;
        const spdk_uuid* uuid = spdk_bdev_get_uuid(bdev);
        auto known = std::find_if(known_.begin(), known_.end(), [ctrlr, nsid](const Known& one) {
          return one.ctrlr == ctrlr && one.nsid == nsid;
        });
        const bool is_same =
            known != known_.end() && known->bdev == bdev && spdk_uuid_compare(&known->bdev_uuid, uuid) == 0;
        if (known == known_.end()) known = known_.insert(known_.end(), Known{});
        if (!is_same) *known = {ctrlr, nsid, bdev, *uuid, NvmeIds::Of(spdk_nvme_ctrlr_get_ns(ctrlr, nsid)), true, false};
        known->seen = true;
      }
      // A connection that is lost or being made may have none for now.
      for (Known& known : known_) {
        if (known.ctrlr != ctrlr || known.seen) continue;
        known.seen = spdk_bdev_get_by_name((prefix + std::to_string(known.nsid)).c_str()) == known.bdev;
      }
    }
  }
  std::erase_if(known_, [](const Known& known) { return !known.seen; });
  // Without one it costs nothing.
  if (known_.empty()) spdk_poller_unregister(&look_poller_);
  else if (look_poller_ == nullptr) look_poller_ = spdk_poller_register_named(OnLook, this, 0, "effect_spdk_nvme_identity");
}

}  // namespace effect_spdk
