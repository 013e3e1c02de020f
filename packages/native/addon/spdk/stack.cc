#include "stack.h"

#include <cstdio>
#include <cstring>
#include <vector>

namespace effect_spdk {

namespace {

// What the bdev's module says of it. The names of the bdevs below are in there.
std::string DumpOf(spdk_bdev* bdev) {
  std::string text;
  const auto write = [](void* context, const void* data, size_t size) {
    static_cast<std::string*>(context)->append(static_cast<const char*>(data), size);
    return 0;
  };
  spdk_json_write_ctx* const writer = spdk_json_write_begin(write, &text, 0);
  if (writer == nullptr) return text;
  spdk_json_write_object_begin(writer);
  spdk_bdev_dump_info_json(bdev, writer);
  spdk_json_write_object_end(writer);
  spdk_json_write_end(writer);
  return text;
}

// As a value, and not as the name of one.
bool HasValue(const std::string& json, const std::string& value) {
  for (size_t at = json.find(value); at != std::string::npos; at = json.find(value, at + 1)) {
    const size_t end = at + value.size();
    if (end >= json.size() || json[end] != ':') return true;
  }
  return false;
}

}  // namespace

std::string JsonString(const char* text) {
  std::string out = "\"";
  for (const char* c = text; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') {
      out += '\\';
      out += *c;
    } else if (static_cast<unsigned char>(*c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(*c)));
      out += escaped;
    } else {
      out += *c;
    }
  }
  return out + "\"";
}

bool IsOfModule(const spdk_bdev* bdev, const char* module) { return std::strcmp(bdev->module->name, module) == 0; }

bool AnyOfModule(const char* module) {
  for (spdk_bdev* bdev = spdk_bdev_first(); bdev != nullptr; bdev = spdk_bdev_next(bdev)) {
    if (IsOfModule(bdev, module)) return true;
  }
  return false;
}

std::set<spdk_bdev*> StackOf(spdk_bdev* top) {
  std::set<spdk_bdev*> seen = {top};
  std::vector<spdk_bdev*> left = {top};
  while (!left.empty()) {
    const std::string dump = DumpOf(left.back());
    left.pop_back();
    for (spdk_bdev* below = spdk_bdev_first(); below != nullptr; below = spdk_bdev_next(below)) {
      if (HasValue(dump, JsonString(spdk_bdev_get_name(below))) && seen.insert(below).second) left.push_back(below);
    }
  }
  return seen;
}

}  // namespace effect_spdk
