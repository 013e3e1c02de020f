// What JavaScript asks of blobstores and blobs, by name. Every call is answered once, on SPDK's app thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blob.h"
#include "blobstore.h"

namespace effect_spdk {

// What a call takes stands with the call, in blobstore_calls.cc and blobstore_queries.cc. A number that is not there is 0, a text empty.
struct BlobstoreCall {
  std::string name;
  std::vector<double> numbers;
  std::vector<std::string> texts;
  std::vector<std::string> values;

  double Number(size_t index) const { return index < numbers.size() ? numbers[index] : 0; }
  uint32_t U32(size_t index) const { return static_cast<uint32_t>(Number(index)); }
  bool Bool(size_t index) const { return Number(index) != 0; }
  std::string Value(size_t index) const { return index < values.size() ? values[index] : std::string(); }
  std::string Text(size_t index) const { return index < texts.size() ? texts[index] : std::string(); }
};

struct BlobstoreAnswer {
  int status = 0;
  std::string text;
  // Of 64-bit floating point numbers, where a call says that it answers numbers.
  std::string bytes;
};

inline BlobstoreAnswer StatusOnly(int status) {
  BlobstoreAnswer answer;
  answer.status = status;
  return answer;
}

using Answered = std::function<void(BlobstoreAnswer answer)>;
using Progressed = std::function<void(uint64_t done)>;

// The app thread, all of them. False when there is no such call.
bool CallBlobstore(const std::shared_ptr<Blobstore>& store, const BlobstoreCall& call, const Progressed& progressed,
                   const Answered& answered);
bool CallBlob(const std::shared_ptr<Blob>& blob, const BlobstoreCall& call, const Answered& answered);
bool QueryBlobstore(Blobstore& store, const BlobstoreCall& call, BlobstoreAnswer* answer);
bool QueryBlob(Blob& blob, const BlobstoreCall& call, BlobstoreAnswer* answer);

BlobstoreOptions BlobstoreOptionsOf(const BlobstoreCall& call);

std::string BytesOf(const std::vector<double>& numbers);

// The bdev under the blob; empty when it is no clone of one.
std::string ExternalSnapshotOf(spdk_blob* blob);

// -ENOENT when no blob can have this id.
int BlobIdOf(double number, spdk_blob_id* id);

}  // namespace effect_spdk
