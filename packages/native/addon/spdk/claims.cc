#include "claims.h"

#include <cerrno>
#include <cstdint>
#include <map>

namespace effect_spdk {

namespace {

// SPDK reads the name, to say who has the claim.
spdk_bdev_module* Module() {
  static auto* const module = [] {
    auto* made = new spdk_bdev_module{};
    made->name = "blobstore";
    return made;
  }();
  return module;
}

// The number of holders of each bdev that is claimed here.
std::map<spdk_bdev*, uint32_t>& Holders() {
  static auto* const holders = new std::map<spdk_bdev*, uint32_t>;
  return *holders;
}

void IgnoreEvent(spdk_bdev_event_type, spdk_bdev*, void*) {}

}  // namespace

std::string ClaimOf(const std::string& name) {
  spdk_bdev_desc* desc = nullptr;
  if (spdk_bdev_open_ext(name.c_str(), false, IgnoreEvent, nullptr, &desc) != 0) return {};
  const auto& internal = spdk_bdev_desc_get_bdev(desc)->internal;
  std::string text;
  const spdk_bdev_module* module = nullptr;
  if (internal.claim_type == SPDK_BDEV_CLAIM_EXCL_WRITE) {
    module = internal.claim.v1.module;
  } else if (internal.claim_type != SPDK_BDEV_CLAIM_NONE) {
    const spdk_bdev_module_claim* first = TAILQ_FIRST(&internal.claim.v2.claims);
    if (first != nullptr) module = first->module;
  }
  if (module != nullptr) {
    text = std::string("claimed by module ") + module->name + " (" + spdk_bdev_claim_get_name(internal.claim_type) + ")";
  }
  spdk_bdev_close(desc);
  return text;
}

bool HasWriter(const std::string& name) {
  spdk_bdev_desc* desc = nullptr;
  if (spdk_bdev_open_ext(name.c_str(), false, IgnoreEvent, nullptr, &desc) != 0) return false;
  // The claim that a store of logical volumes makes. The close ends it.
  const int rc = spdk_bdev_module_claim_bdev_desc(desc, SPDK_BDEV_CLAIM_READ_MANY_WRITE_ONE, nullptr, Module());
  spdk_bdev_close(desc);
  return rc == -EPERM;
}

int ClaimBdev(spdk_bdev* bdev) {
  const int rc = spdk_bdev_module_claim_bdev(bdev, nullptr, Module());
  if (rc == 0) Holders()[bdev] = 1;
  return rc;
}

int ShareClaim(spdk_bdev* bdev) {
  const auto found = Holders().find(bdev);
  if (found == Holders().end()) return ClaimBdev(bdev);
  found->second++;
  return 0;
}

void ReleaseClaim(spdk_bdev* bdev) {
  const auto found = Holders().find(bdev);
  if (found == Holders().end() || --found->second != 0) return;
  Holders().erase(found);
  spdk_bdev_module_release_bdev(bdev);
}

LiftedClaim::LiftedClaim(const std::string& name) {
  spdk_bdev* const bdev = spdk_bdev_get_by_name(name.c_str());
  if (bdev == nullptr || !Holders().contains(bdev)) return;
  bdev_ = bdev;
  spdk_bdev_module_release_bdev(bdev);
}

LiftedClaim::~LiftedClaim() {
  if (bdev_ != nullptr) spdk_bdev_module_claim_bdev(bdev_, nullptr, Module());
}

}  // namespace effect_spdk
