// What a bdev stands on, as SPDK's modules tell it. App thread.
#pragma once

#include <set>
#include <string>

#include "spdk_headers.h"

namespace effect_spdk {

std::string JsonString(const char* text);

bool IsOfModule(const spdk_bdev* bdev, const char* module);

// Whether there is a bdev of that module.
bool AnyOfModule(const char* module);

// The bdev, and all that are below it.
std::set<spdk_bdev*> StackOf(spdk_bdev* top);

}  // namespace effect_spdk
