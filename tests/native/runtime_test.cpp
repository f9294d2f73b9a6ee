// What the kernels need of the system, without Python: the choice of an instruction set, kept memory, and
// threads. Built for each platform as kernels_test is.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/dispatch.h"
#include "runtime/float_mode.h"
#include "runtime/allocator.h"
#include "runtime/threads.h"

using namespace fastrnn;

namespace {

int passed = 0, failed = 0;

void check(bool right, const char* what) {
  ++(right ? passed : failed);
  if (!right) std::printf("wrong: %s\n", what);
}

void set_isa(const char* name) {
#ifdef _WIN32
  _putenv_s("FASTRNN_ISA", name);
#else
  setenv("FASTRNN_ISA", name, 1);
#endif
}

// ---- Dispatch ----

void test_dispatch() {
  const std::vector<std::string> isas = usable_isas();
  std::string names;
  for (const std::string& name : isas) names += (names.empty() ? "" : ", ") + name;
  std::printf("instruction sets: %s\n", names.c_str());
  check(!isas.empty() && isas.back() == "scalar", "the scalar kernels are the last choice");
  check(std::set<std::string>(isas.begin(), isas.end()).size() == isas.size(), "names differ");

  set_isa("none-such");
  try {
    kernels();
    check(false, "an unknown instruction set is refused");
  } catch (const std::runtime_error& error) {
    check(error.what() == "FASTRNN_ISA must be one of " + names + " on this machine, got none-such",
          "the error says what there is");
  }
  set_isa("scalar");
  check(std::string(kernels().isa) == "scalar", "the one that is asked for");
  set_isa(isas.front().c_str());
  check(std::string(kernels().isa) == "scalar", "chosen once");
}

// ---- Memory ----

bool on_a_line(const void* block) { return reinterpret_cast<std::uintptr_t>(block) % 64 == 0; }

void test_memory() {
  Memory& of = memory();
  of.set_patience(std::chrono::hours(1));
  for (const std::size_t size :
       {std::size_t{1}, Memory::kLeast - 1, 2 * Memory::kLeast, std::size_t{5000000}}) {
    void* block = of.take(size, "a test");
    check(on_a_line(block), "on a cache line");
    std::memset(block, 7, size);
    const std::size_t before = of.kept(), made = of.made();
    of.give(block, size);
    if (size < Memory::kLeast) {
      check(of.kept() == before, "small blocks go back at once");
      continue;
    }
    check(of.kept() == before + size, "large blocks are kept");
    void* again = of.take(size - size / 20, "a test");
    check(again == block && of.made() == made, "and serve a call that needs about as much");
    of.give(again, size - size / 20);
  }
  const std::size_t kept = of.kept();
  check(kept > 0 && of.release() == kept && of.kept() == 0, "all is given back when asked");

  of.set_limit(400000);
  of.give(of.take(300000, "a test"), 300000);
  of.give(of.take(500000, "a test"), 500000);
  check(of.kept() == 300000, "no more than the limit is kept");
  of.set_limit(0);
  check(of.kept() == 0, "a lower limit lets go");
  of.set_limit(std::size_t{1} << 30);

  constexpr std::size_t kTooMuch = ~std::size_t{0} / 2;
  try {
    of.take(kTooMuch, "more than there is");
    check(false, "what cannot be had is an error");
  } catch (const OutOfMemory& error) {
    check(error.what() ==
              "out of memory: " + std::to_string(kTooMuch) + " bytes for more than there is",
          "the error says for what");
  }
}

#ifdef FASTRNN_THREADS
void test_memory_goes_by_itself() {
  Memory& of = memory();
  of.give(of.take(1 << 20, "a test"), 1 << 20);
  check(of.kept() > 0, "kept");
  of.set_patience(std::chrono::milliseconds(1));
  for (int i = 0; i < 6000 && of.kept() > 0; ++i)  // a minute at most, a quarter of a second mostly
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  check(of.kept() == 0, "what nobody takes goes by itself");
}

void test_memory_of_several_threads() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&wrong, rank] {
      for (std::size_t i = 0; i < 200; ++i) {
        const std::size_t size = Memory::kLeast + 1000 * (i % 7);
        auto* block = static_cast<unsigned char*>(memory().take(size, "a test"));
        std::memset(block, rank, size);
        std::this_thread::yield();
        for (std::size_t at = 0; at < size; at += 997) wrong += block[at] != rank;
        memory().give(block, size);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  check(wrong == 0, "a block is one thread's");
}
#endif

// ---- Threads ----

// Each rank counts, meets the others, and looks whether all have counted, again and again.
struct Team {
  explicit Team(int n) : size(n), barrier(n), seen(static_cast<std::size_t>(n)) {}

  static void enter(void* self, int rank) {
    Team& team = *static_cast<Team*>(self);
    ++team.seen[static_cast<std::size_t>(rank)];
    team.wrong += FloatMode::now() != team.mode;
    for (int round = 1; round <= kRounds; ++round) {
      ++team.count;
      if (team.size > 1) team.barrier.wait();
      team.wrong += team.count != round * team.size;
      if (team.size > 1) team.barrier.wait();
    }
  }
  bool right() const {
    for (const int times : seen)
      if (times != 1) return false;
    return wrong == 0 && count == kRounds * size;
  }

  static constexpr int kRounds = 50;
  int size;
  Barrier barrier;
  std::vector<int> seen;
  FloatMode mode = FloatMode::now();
  std::atomic<int> count{0}, wrong{0};
};

bool runs(int wanted) {
  const ThreadTeam lease(wanted, 1e6);
  if (lease.size() < 1 || lease.size() > wanted) return false;
  Team team(lease.size());
  lease.run(lease.size(), Team::enter, &team);
  return team.right();
}

void test_threads() {
  check(ThreadTeam(1, 1e6).size() == 1, "one is the caller alone");
  for (int i = 0; i < 20; ++i) check(runs(1 + i % 5), "each rank once, all at the same time");
  {
    const InFloatMode flushing(FloatMode::now().flushing());
    check(runs(3), "in the caller's floating-point mode");
  }
#ifdef FASTRNN_THREADS
  {
    const ThreadTeam first(2, 1e6), second(2, 1e6);
    check(second.size() == 1, "while a call has the pool others are alone");
  }
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&right] {
      for (int i = 0; i < 20; ++i) right += runs(3);
    });
  for (std::thread& each : callers) each.join();
  check(right == 80, "calls at a time");
  check(generation() == 0, "no fork");
#else
  check(ThreadTeam(4, 1e6).size() == 1, "without threads all calls are their callers alone");
#endif
}

}  // namespace

int main() {
  test_dispatch();
  test_memory();
#ifdef FASTRNN_THREADS
  test_memory_goes_by_itself();
  test_memory_of_several_threads();
#else
  std::printf("without threads\n");
#endif
  test_threads();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
