#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../core/handover.h"
#include "../core/ring.h"
#include "harness.h"

namespace effect_spdk {
namespace {

constexpr uint32_t kSq = 16;
constexpr uint32_t kCq = 32;
constexpr uint64_t k31 = uint64_t{1} << 31;
constexpr uint64_t k32 = uint64_t{1} << 32;

struct alignas(64) Memory {
  explicit Memory(uint32_t sq = kSq, uint32_t cq = kCq) : words(Ring::BytesFor(sq, cq) / sizeof(uint32_t), 0) {}
  std::vector<uint32_t> words;
  std::atomic_ref<uint32_t> At(uint32_t word) { return std::atomic_ref<uint32_t>(words[word]); }
};

// The JavaScript side, as RingQueue.ts does it.
class Client {
 public:
  Client(Memory& memory, uint32_t sq, uint32_t cq)
      : memory_(memory),
        sq_(sq),
        cq_(cq),
        tail_(memory.At(layout::control::sq_tail_word).load()),
        head_(memory.At(layout::control::cq_head_word).load()) {}

  bool Submit(uint32_t id) {
    if (tail_ - memory_.At(layout::control::sq_head_word).load() == sq_) return false;
    const size_t at = layout::control::words + size_t{tail_ & (sq_ - 1)} * layout::sqe::words;
    for (uint32_t i = 0; i < layout::sqe::words; i++) memory_.words[at + i] = 0;
    memory_.words[at + layout::sqe::opcode_word] = id << layout::sqe::id_shift;
    memory_.words[at + layout::sqe::id_generation_word] = ~id;
    // All of it, because an entry has no room for more than its lower half.
    memory_.words[at + layout::sqe::offset_blocks_word] = id;
    tail_++;
    memory_.At(layout::control::sq_tail_word).store(tail_);
    return true;
  }

  bool Take(uint32_t* id, uint32_t* generation) {
    if (memory_.At(layout::control::cq_tail_word).load() == head_) return false;
    const size_t at =
        layout::control::words + size_t{sq_} * layout::sqe::words + size_t{head_ & (cq_ - 1)} * layout::cqe::words;
    *id = memory_.words[at + layout::cqe::id_word];
    *generation = memory_.words[at + layout::cqe::id_generation_word];
    head_++;
    memory_.At(layout::control::cq_head_word).store(head_);
    return true;
  }

  // True when the reactor slept and must be kicked.
  bool ReactorSleeps() { return memory_.At(layout::control::reactor_sleeping_word).exchange(0) != 0; }

 private:
  Memory& memory_;
  const uint32_t sq_;
  const uint32_t cq_;
  uint32_t tail_;
  uint32_t head_;
};

TEST("a ring announces its sizes") {
  Memory memory;
  const Ring ring(memory.words.data(), kSq, kCq);
  CHECK(memory.words[layout::control::magic_word] == layout::control::magic);
  CHECK(memory.words[layout::control::sq_entries_word] == kSq);
  CHECK(memory.words[layout::control::cq_entries_word] == kCq);
  CHECK(ring.Available() == 0);
}

TEST("a tail beyond the ring reads as a full ring") {
  Memory memory;
  const Ring ring(memory.words.data(), kSq, kCq);
  memory.At(layout::control::sq_tail_word).store(0xdeadbeef);
  CHECK(ring.Available() == kSq);
}

// What JavaScript writes into the first slots of a ring.
void Write(Memory& memory, std::initializer_list<uint32_t> words) {
  std::copy(words.begin(), words.end(), memory.words.begin() + layout::control::words);
}

TEST("an entry is read out of its eight words") {
  Memory memory;
  const Ring ring(memory.words.data(), kSq, kCq);
  Write(memory, {0xabcd0002u | 5u << 8, 77, 0x00090003, 4, 8, 4096, 0xfffffff0, 0xffffffff, 0xffffffff, 0xffffffff});
  SubmissionEntry entry;
  ring.CopyEntry(2, &entry);
  CHECK(entry.opcode() == Opcode::kWrite);
  CHECK(entry.id() == 0xabcd && entry.id_generation() == 77);
  CHECK(entry.channel_slot() == 3 && entry.channel_generation() == 4);
  CHECK(entry.target_id() == 3 && entry.target_generation() == 4);
  CHECK(entry.slab_slot() == 9 && entry.slab_generation() == 8 && entry.slab_offset() == 4096);
  CHECK(entry.offset_blocks() == 0xfffffff0u && entry.length_blocks() == 0xffffffffu);
  CHECK(entry.segment_count() == 5 && entry.segments_at() == 1 && entry.slots() == 4);
}

TEST("a wide entry has its upper halves in the next slot, when that was published") {
  Memory memory;
  const Ring ring(memory.words.data(), kSq, kCq);
  Write(memory, {0x00010001u | layout::sqe::wide_bit | 1u << 8, 1, 0, 0, 0, 0, 7, 8, 0x100, 0x200});
  SubmissionEntry entry;
  ring.CopyEntry(3, &entry);
  CHECK(entry.offset_blocks() == 0x10000000007u && entry.length_blocks() == 0x20000000008u);
  CHECK(entry.segments_at() == 2 && entry.slots() == 3);
  SubmissionEntry truncated;
  ring.CopyEntry(1, &truncated);
  CHECK(truncated.offset_blocks() == 7 && truncated.length_blocks() == 8 && truncated.slots() == 3);
}

TEST("a completion is written into four words, a tick with its runs in place of a status") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  ring.Push({.id = 1, .id_generation = 2, .status = -5, .detail = Detail::kClosing, .nvme = 0x3ffff});
  ring.Push({.id = 3, .kind = CompletionKind::kTick, .runs = 0xffffffff});
  ring.Publish();
  const uint32_t* words = memory.words.data() + layout::control::words + kSq * layout::sqe::words;
  CHECK(words[0] == 1 && words[1] == 2 && words[2] == static_cast<uint32_t>(-5));
  CHECK(words[3] == (0x3ffffu << 8 | static_cast<uint32_t>(Detail::kClosing)));
  CHECK(words[4] == 3 && words[6] == 0xffffffff && words[7] == 0x80000000u);
}

TEST("completions stop where JavaScript has not read") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  for (uint32_t i = 0; i < kCq; i++) {
    CHECK(ring.HasRoom());
    ring.Push({.id = i});
  }
  CHECK(!ring.HasRoom());
  ring.Publish();
  memory.At(layout::control::cq_head_word).store(1);
  CHECK(ring.HasRoom());
}

TEST("a completion head that cannot be is not believed") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  for (uint32_t i = 0; i < kCq; i++) ring.Push({.id = i});
  ring.Publish();
  for (const uint32_t head : {uint32_t{kCq + 1}, uint32_t{0xffffffff}, uint32_t{0x80000000}}) {
    memory.At(layout::control::cq_head_word).store(head);
    CHECK(!ring.HasRoom());
  }
}

TEST("a sleeper is woken once, and only by something new") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  memory.At(layout::control::js_sleeping_word).store(1);
  CHECK(!ring.Publish());
  ring.Push({.id = 1});
  CHECK(ring.Publish());
  CHECK(ring.JavaScriptSleeps());
  CHECK(ring.TakeWake());
  ring.Push({.id = 2});
  CHECK(!ring.Publish());
  CHECK(!ring.TakeWake());
}

TEST("whose turn it is can be read while JavaScript gives way, and wakes nobody") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  CHECK(ring.JavaScriptGivesWay() == 0);
  ring.SetJavaScriptGivesWay(7);
  CHECK(memory.At(layout::control::js_gives_way_word).load() == 7);
  CHECK(ring.JavaScriptGivesWay() == 7);
  ring.Push({.id = 1});
  CHECK(!ring.Publish());
  CHECK(!ring.TakeWake());
  CHECK(ring.JavaScriptGivesWay() == 7);
}

// As a Queue has them.
struct Placed {
  explicit Placed(int on) : ring(memory.words.data(), kSq, kCq), place(on) {}
  int processor() const { return place; }
  void SetJavaScriptGivesWay(uint32_t turn) { ring.SetJavaScriptGivesWay(turn); }

  Memory memory;
  Ring ring;
  int place;
};

struct Places {
  template <typename Call>
  void ForEach(Call call) const {
    for (const auto& one : all) call(one);
  }
  std::vector<std::shared_ptr<Placed>> all;
};

TEST("a processor is handed to the reactors that run on it, and no other is told") {
  Places places;
  for (const int processor : {2, 5, 2, -1}) places.all.push_back(std::make_shared<Placed>(processor));
  Handover<Placed> handover;
  std::vector<uint32_t> turns;
  for (const int processor : {2, 2, 5}) {
    handover.Give(places, processor, [&] {
      uint32_t turn = 0;
      for (const auto& one : places.all) {
        CHECK((one->ring.JavaScriptGivesWay() != 0) == (one->processor() == processor));
        if (one->processor() == processor) turn = one->ring.JavaScriptGivesWay();
      }
      // Another number each time, so that a reactor can tell one time from the next.
      for (const uint32_t earlier : turns) CHECK(turn != earlier);
      turns.push_back(turn);
    });
    for (const auto& one : places.all) CHECK(one->ring.JavaScriptGivesWay() == 0);
  }
  CHECK(turns.size() == 3);
}

TEST("a reactor that moves away or ends while it has the processor is told that nobody waits any more") {
  Places places;
  places.all = {std::make_shared<Placed>(2), std::make_shared<Placed>(2)};
  const std::shared_ptr<Placed> moved = places.all[0];
  const std::shared_ptr<Placed> ended = places.all[1];
  Handover<Placed> handover;
  handover.Give(places, 2, [&] {
    moved->place = 5;
    places.all.pop_back();
  });
  CHECK(moved->ring.JavaScriptGivesWay() == 0);
  CHECK(ended->ring.JavaScriptGivesWay() == 0);
  CHECK(ended.use_count() == 1);
}

TEST("what has been published and not read is counted") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  for (uint32_t i = 0; i < 3; i++) ring.Push({.id = i});
  CHECK(ring.Unread() == 0);
  ring.Publish();
  CHECK(ring.Unread() == 3);
  memory.At(layout::control::cq_head_word).store(2);
  CHECK(ring.Unread() == 1);
}

TEST("a tick counts as consumed once the head has passed it") {
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  const uint64_t position = ring.Push({.id = 7, .kind = CompletionKind::kTick});
  ring.Publish();
  CHECK(!ring.Consumed(position));
  memory.At(layout::control::cq_head_word).store(1);
  CHECK(ring.Consumed(position));
}

TEST("a tick counts as consumed however many completions have come after it") {
  for (const uint64_t after : {uint64_t{1}, k31 - 1, k31, k31 + 1, k32 - 1, k32, k32 + 1, 2 * k32}) {
    constexpr uint64_t kPosition = 5;
    Memory memory;
    Ring ring(memory.words.data(), kSq, kCq, kPosition + after);
    CHECK(ring.Consumed(kPosition));
    const uint64_t next = ring.Push({.id = 7, .kind = CompletionKind::kTick});
    ring.Publish();
    CHECK(next == kPosition + after);
    CHECK(!ring.Consumed(next));
    memory.At(layout::control::cq_head_word).store(static_cast<uint32_t>(next + 1));
    CHECK(ring.Consumed(next));
  }
}

TEST("a full ring and a head that lies are what they are where the words wrap") {
  for (const uint64_t age : {k31 - 3, k32 - 3, k32 - kCq, 3 * k32 - 1}) {
    Memory memory;
    Ring ring(memory.words.data(), kSq, kCq, age);
    CHECK(ring.Available() == 0);
    CHECK(!ring.HasSubmissions());
    for (uint32_t i = 0; i < kCq; i++) {
      CHECK(ring.HasRoom());
      ring.Push({.id = i});
    }
    CHECK(!ring.HasRoom());
    ring.Publish();
    CHECK(ring.Unread() == kCq);
    // Beyond what is published, and before what has been seen.
    for (const uint64_t head : {age + kCq + 1, age - 1, age + k31}) {
      memory.At(layout::control::cq_head_word).store(static_cast<uint32_t>(head));
      CHECK(!ring.HasRoom());
    }
    memory.At(layout::control::cq_head_word).store(static_cast<uint32_t>(age + kCq));
    CHECK(ring.HasRoom());
    CHECK(ring.Consumed(age + kCq - 1));
  }
}

void EverythingComesBack(uint64_t age) {
  constexpr uint32_t kTotal = 100000;
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq, age);
  std::thread reactor([&] {
    uint32_t done = 0;
    SubmissionEntry entry;
    while (done < kTotal) {
      const uint32_t available = ring.Available();
      for (uint32_t i = 0; i < available && ring.HasRoom(); i++) {
        ring.CopyEntry(available - i, &entry);
        const auto id = static_cast<uint32_t>(entry.offset_blocks());
        ring.Push({.id = (id & 0xffff) == entry.id() ? id : kTotal, .id_generation = entry.id_generation()});
        ring.Consume(1);
        ring.ReturnSlots();
        done++;
      }
      ring.Publish();
    }
  });
  Client client(memory, kSq, kCq);
  std::vector<uint8_t> seen(kTotal, 0);
  uint32_t submitted = 0;
  uint32_t received = 0;
  bool intact = true;
  while (received < kTotal) {
    while (submitted < kTotal && client.Submit(submitted)) submitted++;
    uint32_t id = 0;
    uint32_t generation = 0;
    while (client.Take(&id, &generation)) {
      intact = intact && id < kTotal && generation == ~id && seen[id]++ == 0;
      received++;
    }
  }
  reactor.join();
  CHECK(intact);
}

TEST("two threads: everything submitted comes back once, across wrapped indexes and words") {
  for (const uint64_t age : {uint64_t{0}, k31 - 50000, k32 - 50000}) EverythingComesBack(age);
}

TEST("two threads: nobody sleeps through the other's message") {
  constexpr uint32_t kRounds = 20000;
  Memory memory;
  Ring ring(memory.words.data(), kSq, kCq);
  std::atomic<uint32_t> kicks{0};
  std::thread reactor([&] {
    uint32_t done = 0;
    SubmissionEntry entry;
    uint32_t seen_kicks = 0;
    while (done < kRounds) {
      ring.SetReactorSleeping(true);
      if (ring.Available() == 0) {
        // Sleep: only a kick ends it. A lost one hangs here, and the test with it.
        while (kicks.load() == seen_kicks) std::this_thread::yield();
      }
      seen_kicks = kicks.load();
      ring.SetReactorSleeping(false);
      while (ring.Available() != 0) {
        ring.CopyEntry(1, &entry);
        ring.Consume(1);
        ring.ReturnSlots();
        // Always: one message at a time is on its way.
        if (ring.HasRoom()) ring.Push({.id = entry.id()});
        done++;
      }
      ring.Publish();
    }
  });
  Client client(memory, kSq, kCq);
  uint32_t received = 0;
  for (uint32_t i = 0; i < kRounds; i++) {
    while (!client.Submit(i)) std::this_thread::yield();
    if (client.ReactorSleeps()) kicks.fetch_add(1);
    uint32_t id = 0;
    uint32_t generation = 0;
    while (!client.Take(&id, &generation)) std::this_thread::yield();
    received++;
  }
  reactor.join();
  CHECK(received == kRounds);
}

TEST("random words in the control block never make the ring read or write outside itself") {
  std::mt19937 random(20260101);
  for (int round = 0; round < 2000; round++) {
    Memory memory;
    Ring ring(memory.words.data(), kSq, kCq);
    for (int step = 0; step < 50; step++) {
      for (uint32_t word = layout::control::sq_tail_word; word < layout::control::words; word++) {
        if (random() % 8 == 0) memory.At(word).store(static_cast<uint32_t>(random()));
      }
      const uint32_t available = ring.Available();
      CHECK(available <= kSq);
      uint32_t words[layout::sqe::words];
      if (available != 0) {
        ring.CopySlot(static_cast<uint32_t>(random()) % available, words);
        SubmissionEntry entry;
        ring.CopyEntry(available, &entry);
        CHECK(entry.slots() >= 1 && entry.slots() <= 2 + layout::sqe::segments_mask / layout::segment::per_slot + 1);
        ring.Consume(1);
        ring.ReturnSlots();
      }
      if (ring.HasRoom()) ring.Push({.id = static_cast<uint32_t>(random())});
      ring.Publish();
    }
  }
}

}  // namespace
}  // namespace effect_spdk
