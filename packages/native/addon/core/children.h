// What a program that this process starts gets of it: no descriptor but those that it is handed. Libraries under this one open
// sockets, event descriptors and memory files without close-on-exec, at any time and on any thread, and a child that outlives this
// process would hold on to its listeners. No Node, no SPDK.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace effect_spdk {

class Children {
 public:
  // Any thread; the first call counts. From here on what `fork` makes closes, at its exec, every descriptor above the standard three.
  // Whoever hands descriptors to a child puts them in place after the fork, by dup2, which takes the mark off again. What
  // posix_spawn and vfork make does not come by here.
  static void InheritNothing() {
    [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, MarkAll);
  }

  // Between a fork and its exec nothing may lock or allocate: system calls only.
  static void MarkAll() {
    if (!MarkRange()) MarkListed();
  }

  // One call, where the kernel has it: Linux 5.11.
  static bool MarkRange() {
#ifdef SYS_close_range
    return syscall(SYS_close_range, kFirst, ~0u, kCloseRangeCloexec) == 0;
#else
    return false;
#endif
  }

  // One by one, as /proc lists them.
  static void MarkListed() {
    const int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return;
    alignas(uint64_t) char entries[4096];
    for (long length = 0; (length = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0;) {
      for (long at = 0; at < length;) {
        // struct linux_dirent64: 8 bytes each of inode and offset, 2 of the record's length, 1 of type, the name.
        uint16_t record_length = 0;
        std::memcpy(&record_length, entries + at + 16, sizeof record_length);
        const unsigned descriptor = Number(entries + at + 19);
        if (descriptor >= kFirst && descriptor != kNone) fcntl(static_cast<int>(descriptor), F_SETFD, FD_CLOEXEC);
        at += record_length;
      }
    }
    close(directory);
  }

 private:
  static constexpr unsigned kFirst = 3;
  static constexpr unsigned kNone = ~0u;
  // CLOSE_RANGE_CLOEXEC, which older headers do not name.
  static constexpr unsigned kCloseRangeCloexec = 4;

  static unsigned Number(const char* text) {
    if (*text == '\0') return kNone;
    unsigned number = 0;
    for (; *text != '\0'; text++) {
      if (*text < '0' || *text > '9') return kNone;
      number = number * 10 + static_cast<unsigned>(*text - '0');
    }
    return number;
  }
};

}  // namespace effect_spdk
