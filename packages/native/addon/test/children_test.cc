#include "../core/children.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "harness.h"

namespace effect_spdk {
namespace {

bool ClosesOnExec(int descriptor) { return (fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0; }

// Three pipes' worth of descriptors that anybody inherits, and some far up.
struct Descriptors {
  Descriptors() {
    for (int& descriptor : open) {
      int both[2] = {-1, -1};
      if (pipe(both) != 0) return;
      descriptor = both[0];
      close(both[1]);
    }
    high = fcntl(open[0], F_DUPFD, 700);
  }
  ~Descriptors() {
    for (const int descriptor : open) close(descriptor);
    close(high);
  }
  int open[64] = {};
  int high = -1;
};

template <typename Mark>
void ChecksMark(Mark mark) {
  const Descriptors descriptors;
  const bool standard = ClosesOnExec(1);
  CHECK(!ClosesOnExec(descriptors.open[0]));
  mark();
  for (const int descriptor : descriptors.open) CHECK(ClosesOnExec(descriptor));
  CHECK(ClosesOnExec(descriptors.high));
  CHECK(ClosesOnExec(1) == standard);
}

TEST("every descriptor above the standard three is marked, by one call or one by one") {
  ChecksMark([] { Children::MarkAll(); });
  ChecksMark([] { Children::MarkListed(); });
}

TEST("a child has nothing that was opened after the hook was there, but what is put in place after the fork") {
  Children::InheritNothing();
  Children::InheritNothing();
  const Descriptors descriptors;
  const int handed = descriptors.open[1];
  const pid_t child = fork();
  if (child == 0) {
    const int first = fcntl(handed, F_DUPFD_CLOEXEC, 100);
    dup2(first, 9);
    const std::string script = "test -e /proc/self/fd/9 -a ! -e /proc/self/fd/" + std::to_string(descriptors.high) +
                               " -a ! -e /proc/self/fd/" + std::to_string(descriptors.open[63]);
    execl("/bin/sh", "sh", "-c", script.c_str(), nullptr);
    _exit(99);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  // Nothing changed here.
  CHECK(!ClosesOnExec(descriptors.high));
}

}  // namespace
}  // namespace effect_spdk
