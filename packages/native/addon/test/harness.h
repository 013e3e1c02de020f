// The least that a unit test needs: named tests, checks that count, a non-zero exit when one fails.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace effect_spdk::test {

struct Test {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Test>& Tests() {
  static std::vector<Test> tests;
  return tests;
}

inline bool& Failed() {
  static bool failed = false;
  return failed;
}

struct Register {
  Register(std::string name, std::function<void()> body) { Tests().push_back({std::move(name), std::move(body)}); }
};

}  // namespace effect_spdk::test

#define EFFECT_SPDK_JOIN2(a, b) a##b
#define EFFECT_SPDK_JOIN(a, b) EFFECT_SPDK_JOIN2(a, b)
#define TEST(name)                                                                                             \
  static void EFFECT_SPDK_JOIN(Test, __LINE__)();                                                              \
  static const effect_spdk::test::Register EFFECT_SPDK_JOIN(register_, __LINE__)(name, EFFECT_SPDK_JOIN(Test, __LINE__)); \
  static void EFFECT_SPDK_JOIN(Test, __LINE__)()

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::printf("    %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);  \
      effect_spdk::test::Failed() = true;                                            \
    }                                                                                \
  } while (false)
