#include "harness.h"

int main() {
  using namespace effect_spdk::test;
  int passed = 0;
  int failed = 0;
  for (const Test& test : Tests()) {
    Failed() = false;
    test.body();
    std::printf("  %s %s\n", Failed() ? "FAIL" : "ok", test.name.c_str());
    Failed() ? failed++ : passed++;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
