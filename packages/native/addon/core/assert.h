// What must not happen, asserted in debug builds (EFFECT_SPDK_DEBUG): those of the sanitizers, and `build.mjs --debug`. A release build
// evaluates none of it. What comes from JavaScript is checked in every build, and answered with an error instead. No Node, no SPDK.
#pragma once

#ifdef EFFECT_SPDK_DEBUG

#include <cstdio>
#include <cstdlib>

namespace effect_spdk {

[[noreturn]] inline void AssertionFailed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "effect-spdk: %s:%d: this must not happen: not %s\n", file, line, what);
  std::abort();
}

inline constexpr bool kDebug = true;

}  // namespace effect_spdk

#define EFFECT_SPDK_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::effect_spdk::AssertionFailed(#condition, __FILE__, __LINE__))

#else

namespace effect_spdk {

inline constexpr bool kDebug = false;

}  // namespace effect_spdk

// Compiled, so that it cannot rot, and never evaluated.
#define EFFECT_SPDK_ASSERT(condition) static_cast<void>(sizeof(condition))

#endif
