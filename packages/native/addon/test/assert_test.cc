// Assertions of debug builds end the process, and those of release builds are not there.
#include "../core/assert.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <vector>

#include "../core/ring.h"
#include "../core/slab_pins.h"
#include "harness.h"

namespace effect_spdk {
namespace {

// How a child process ends that does this: 0 when it survives, otherwise the signal.
template <typename Act>
int EndOf(Act act) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::fclose(stderr);
    act();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST("a slab that is unpinned once too often ends a debug build") {
  if (!kDebug) return;
  const auto slabs = std::make_shared<SlabTable>(4);
  std::vector<char> memory(4096);
  const auto handle = slabs->Open(memory.data(), 4096);
  CHECK(EndOf([&] { slabs->Unpin(handle->slot); }) == SIGABRT);
  CHECK(EndOf([&] {
          SlabPins pins(slabs);
          char* address = nullptr;
          pins.Pin(handle->slot, handle->generation, 0, 4096, &address);
        }) == SIGABRT);
}

TEST("a completion for which the ring has no room ends a debug build") {
  if (!kDebug) return;
  const auto words = Ring::BytesFor(4, 4) / sizeof(uint32_t);
  std::vector<uint32_t> storage(words + 16);
  auto address = reinterpret_cast<uintptr_t>(storage.data());
  address = (address + 63) / 64 * 64;
  Ring ring(reinterpret_cast<uint32_t*>(address), 4, 4);
  CHECK(EndOf([&] {
          for (int i = 0; i < 5; i++) ring.Push(CompletionEntry{});
        }) == SIGABRT);
}

TEST("a release build evaluates no assertion") {
  if (kDebug) return;
  int evaluated = 0;
  EFFECT_SPDK_ASSERT(++evaluated != 0);
  CHECK(evaluated == 0);
}

}  // namespace
}  // namespace effect_spdk
