#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "../core/backoff.h"
#include "../core/busy_share.h"
#include "../core/inbox.h"
#include "../core/mailbox.h"
#include "harness.h"

namespace effect_spdk {
namespace {

constexpr uint64_t kFar = UINT64_MAX;

TEST("backoff: work keeps the reactor awake, and so does the time right after it") {
  Backoff backoff;
  CHECK(backoff.Next(1000, 1, false, kFar) == 0);
  CHECK(backoff.Next(1000 + Backoff::kGraceMicros - 1, 1, false, kFar) == 0);
  CHECK(backoff.Next(1000 + Backoff::kGraceMicros, 1, false, kFar) == Backoff::kFirstSleepMicros);
  CHECK(backoff.Next(5000, 2, false, kFar) == 0);
}

TEST("backoff: sleeps grow to the longest and start over after work") {
  Backoff backoff;
  backoff.Next(0, 1, false, kFar);
  uint64_t now = 10000;
  uint32_t last = 0;
  for (int i = 0; i < 12; i++) {
    const uint32_t sleep = backoff.Next(now, 1, false, kFar);
    CHECK(sleep >= last && sleep <= Backoff::kLongestSleepMicros);
    last = sleep;
    now += sleep;
  }
  CHECK(last == Backoff::kLongestSleepMicros);
  backoff.Next(now, 2, false, kFar);
  CHECK(backoff.Next(now + 10000, 2, false, kFar) == Backoff::kFirstSleepMicros);
}

TEST("backoff: no sleep past a timer, and short ones while a device owes an answer") {
  Backoff backoff;
  backoff.Next(0, 1, false, kFar);
  uint64_t now = 10000;
  for (int i = 0; i < 12; i++) now += backoff.Next(now, 1, false, kFar);
  CHECK(backoff.Next(now, 1, false, 7) == 7);
  CHECK(backoff.Next(now, 1, false, 0) == 0);
  CHECK(backoff.Next(now, 1, true, kFar) == Backoff::kLongestSleepInFlightMicros);
}

TEST("busy share: housekeeping that takes a tenth of the time since the last look is none of the work") {
  BusyShare share(16000);
  uint64_t now = 0;
  uint64_t busy = 0;
  for (int look = 1; look <= 400; look++) {
    now += 1000;
    if (look % 4 == 0) busy += 100;
    CHECK(!share.Look(now, busy));
  }
}

TEST("busy share: what works is at work before long, and not any more when it stops") {
  BusyShare share(16000);
  uint64_t now = 1000000;
  uint64_t busy = 500;
  share.Look(now, busy);
  int looks = 0;
  bool at_work = false;
  while (!at_work && looks < 100) {
    looks++;
    now += 30;
    busy += 25;
    at_work = share.Look(now, busy);
  }
  CHECK(at_work && looks * 30 < 1500);
  for (int look = 0; look < 100; look++) {
    now += 30;
    busy += 3;
    CHECK(share.Look(now, busy));
  }
  CHECK(!share.Look(now + 30, busy));
  CHECK(!share.Look(now + 60, busy - 1000));
  int calm = 0;
  for (int look = 1; look <= 100; look++) {
    if (!share.Look(now + 60 + 1000 * look, busy - 1000 + 20 * look)) calm++;
  }
  CHECK(calm > 70);
}

TEST("inbox: tasks run in order, those posted meanwhile at the next turn, none after the close") {
  Inbox inbox;
  std::vector<int> order;
  inbox.Post([&] {
    order.push_back(1);
    inbox.Post([&] { order.push_back(3); });
  });
  inbox.Post([&] { order.push_back(2); });
  CHECK(inbox.Run() == 2);
  CHECK(inbox.pending());
  CHECK(inbox.Run() == 1);
  CHECK((order == std::vector<int>{1, 2, 3}));
  inbox.Post([&] { order.push_back(4); });
  CHECK(inbox.Close().size() == 1);
  CHECK(!inbox.Post([] {}));
  CHECK(inbox.Run() == 0);
  CHECK(order.size() == 3);
}

TEST("inbox: four threads, nothing lost") {
  Inbox inbox;
  std::atomic<int> ran{0};
  std::vector<std::thread> senders;
  for (int i = 0; i < 4; i++) {
    senders.emplace_back([&] {
      for (int task = 0; task < 5000; task++) inbox.Post([&] { ran.fetch_add(1); });
    });
  }
  while (ran.load() < 20000) inbox.Run();
  for (auto& sender : senders) sender.join();
  CHECK(ran.load() == 20000);
  CHECK(!inbox.pending());
}

TEST("mailbox: one wake for many events, another after they were taken") {
  int wakes = 0;
  Mailbox mailbox([&] { wakes++; });
  CHECK(!mailbox.pending());
  for (uint32_t i = 0; i < 3; i++) mailbox.Send({.id = i});
  CHECK(wakes == 1 && mailbox.pending());
  const auto batch = mailbox.Take();
  CHECK(batch.events.size() == 3 && batch.events[2].id == 2);
  CHECK(!mailbox.pending());
  mailbox.Send({.id = 9});
  CHECK(wakes == 2);
}

TEST("mailbox: whoever is woken may take what there is before the sender goes on") {
  size_t taken = 0;
  Mailbox* reader = nullptr;
  Mailbox mailbox([&] { taken += reader->Take().events.size(); });
  reader = &mailbox;
  for (uint32_t i = 0; i < 3; i++) mailbox.Send({.id = i});
  CHECK(taken == 3);
}

TEST("mailbox: a wake for a ring comes without an event") {
  int wakes = 0;
  Mailbox mailbox([&] { wakes++; });
  mailbox.Wake();
  CHECK(wakes == 1 && !mailbox.pending());
}

TEST("mailbox: log lines beyond the bound are counted, answers never dropped") {
  Mailbox mailbox([] {});
  for (size_t i = 0; i < Mailbox::kMostLogLines + 5; i++) mailbox.Send({.kind = Event::Kind::kLog});
  mailbox.Send({.kind = Event::Kind::kReply, .id = 1});
  const auto batch = mailbox.Take();
  CHECK(batch.events.size() == Mailbox::kMostLogLines + 1);
  CHECK(batch.dropped_log_lines == 5);
  CHECK(mailbox.Take().dropped_log_lines == 0);
}

TEST("mailbox: silent after the close") {
  int wakes = 0;
  Mailbox mailbox([&] { wakes++; });
  mailbox.Close();
  mailbox.Send({.id = 1});
  mailbox.Wake();
  CHECK(wakes == 0);
  CHECK(mailbox.Take().events.empty());
}

TEST("mailbox: a sender and a taker, everything arrives") {
  std::atomic<int> wakes{0};
  Mailbox mailbox([&] { wakes.fetch_add(1); });
  std::thread sender([&] {
    for (uint32_t i = 0; i < 20000; i++) mailbox.Send({.id = i, .text = std::to_string(i)});
  });
  uint32_t next = 0;
  bool ordered = true;
  while (next < 20000) {
    for (const Event& event : mailbox.Take().events) ordered = ordered && event.id == next++;
  }
  sender.join();
  CHECK(ordered);
  CHECK(wakes.load() > 0);
}

}  // namespace
}  // namespace effect_spdk
