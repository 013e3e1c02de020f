// What JavaScript asks of what SPDK has in memory.
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "blobstore_calls.h"
#include "spdk_calls.h"

namespace effect_spdk {

std::string BytesOf(const std::vector<double>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double)};
}

std::string ExternalSnapshotOf(spdk_blob* blob) {
  const void* id = nullptr;
  size_t length = 0;
  if (!spdk_blob_is_esnap_clone(blob) || spdk_blob_get_esnap_id(blob, &id, &length) != 0) return {};
  std::string name(static_cast<const char*>(id), length);
  // A UUID may have been stored with the byte that ends it, as SPDK's logical volumes do.
  while (!name.empty() && name.back() == '\0') name.pop_back();
  return name;
}

bool QueryBlobstore(Blobstore& store, const BlobstoreCall& call, BlobstoreAnswer* answer) {
  spdk_blob_store* const bs = store.bs();
  // info -> numbers: cluster bytes, clusters, free clusters, io unit bytes, page bytes; text: type
  if (call.name == "info") {
    const spdk_bs_type type = spdk_bs_get_bstype(bs);
    answer->text.assign(type.bstype, strnlen(type.bstype, sizeof type.bstype));
    answer->bytes = BytesOf({static_cast<double>(spdk_bs_get_cluster_size(bs)),
                             static_cast<double>(spdk_bs_total_data_cluster_count(bs)),
                             static_cast<double>(spdk_bs_free_cluster_count(bs)),
                             static_cast<double>(spdk_bs_get_io_unit_size(bs)), static_cast<double>(spdk_bs_get_page_size(bs))});
    return true;
  }
  // super -> number: its id, -ENOENT when there is none
  if (call.name == "super") {
    // SPDK answers before it returns.
    spdk_bs_get_super(bs, OnBlobId::Run, OnBlobId::Keep([answer](spdk_blob_id id, int status) {
                        answer->status = status;
                        if (status == 0) answer->bytes = BytesOf({static_cast<double>(id)});
                      }));
    return true;
  }
  // clones [id] -> numbers
  if (call.name == "clones") {
    spdk_blob_id id = SPDK_BLOBID_INVALID;
    answer->status = BlobIdOf(call.Number(0), &id);
    if (answer->status != 0) return true;
    size_t count = 0;
    spdk_blob_get_clones(bs, id, nullptr, &count);
    std::vector<spdk_blob_id> ids(count);
    if (count != 0) answer->status = spdk_blob_get_clones(bs, id, ids.data(), &count);
    answer->bytes = BytesOf(std::vector<double>(ids.begin(), ids.end()));
    return true;
  }
  return false;
}

namespace {

// xattrs -> bytes: of each the lengths of name and value in 32 bits, then both
int XattrsOf(spdk_blob* blob, std::string* out) {
  spdk_xattr_names* names = nullptr;
  const int status = spdk_blob_get_xattr_names(blob, &names);
  if (status != 0) return status;
  for (uint32_t i = 0; i < spdk_xattr_names_get_count(names); i++) {
    const std::string name = spdk_xattr_names_get_name(names, i);
    const void* value = nullptr;
    size_t length = 0;
    if (spdk_blob_get_xattr_value(blob, name.c_str(), &value, &length) != 0) continue;
    const uint32_t lengths[2] = {static_cast<uint32_t>(name.size()), static_cast<uint32_t>(length)};
    out->append(reinterpret_cast<const char*>(lengths), sizeof lengths);
    out->append(name);
    out->append(static_cast<const char*>(value), length);
  }
  spdk_xattr_names_free(names);
  return 0;
}

}  // namespace

bool QueryBlob(Blob& blob, const BlobstoreCall& call, BlobstoreAnswer* answer) {
  spdk_blob* const handle = blob.blob();
  // info -> numbers: id, clusters, allocated clusters, io units, read only, thin, snapshot, clone, degraded, the parent's id or 0;
  // text: the external snapshot
  if (call.name == "info") {
    const spdk_blob_id id = spdk_blob_get_id(handle);
    const spdk_blob_id parent = spdk_blob_get_parent_snapshot(blob.store()->bs(), id);
    const auto flag = [](bool set) { return set ? 1.0 : 0.0; };
    answer->text = ExternalSnapshotOf(handle);
    answer->bytes =
        BytesOf({static_cast<double>(id), static_cast<double>(spdk_blob_get_num_clusters(handle)),
                 static_cast<double>(spdk_blob_get_num_allocated_clusters(handle)),
                 static_cast<double>(spdk_blob_get_num_io_units(handle)), flag(blob.read_only()),
                 flag(spdk_blob_is_thin_provisioned(handle)), flag(spdk_blob_is_snapshot(handle)),
                 flag(spdk_blob_is_clone(handle)), flag(spdk_blob_is_degraded(handle)),
                 parent == SPDK_BLOBID_INVALID ? 0 : static_cast<double>(parent)});
    return true;
  }
  if (call.name == "xattrs") return answer->status = XattrsOf(handle, &answer->bytes), true;
  // nextAllocated, nextUnallocated [io unit] -> number, -ENOENT when there is none
  if (call.name == "nextAllocated" || call.name == "nextUnallocated") {
    const auto next = call.name == "nextAllocated" ? spdk_blob_get_next_allocated_io_unit : spdk_blob_get_next_unallocated_io_unit;
    const uint64_t found = next(handle, static_cast<uint64_t>(call.Number(0)));
    if (found == UINT64_MAX) return answer->status = -ENOENT, true;
    answer->bytes = BytesOf({static_cast<double>(found)});
    return true;
  }
  return false;
}

}  // namespace effect_spdk
