#include "runtime/threads.h"

#include "runtime/float_mode.h"
#include "runtime/portability.h"

#if defined(FASTRNN_THREADS)

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {
namespace {

// The CPU that this thread is on, or -1 where the system does not say.
int this_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// A worker, which is kept off its caller's CPU. Systems wake a thread on the CPU of the one that wakes
// it at times, beside an idle one, and leave it there: each then runs only while the other sleeps.
class Worker {
 public:
  explicit Worker(std::thread thread) : handle_(thread.native_handle()) {
#if defined(__linux__)
    pthread_setname_np(handle_, "fastrnn");  // what top and debuggers show
#endif
    thread.detach();
  }

  void keep_off(int cpu) {
#if defined(__linux__)
    cpu_set_t now;
    if (pthread_getaffinity_np(handle_, sizeof now, &now) != 0) return;
    // another mask than the one set here is somebody's wish
    if (!set_ || !CPU_EQUAL(&now, &others_)) all_ = now;
    others_ = all_;
    CPU_CLR(cpu, &others_);
    if (CPU_COUNT(&others_) == 0) others_ = all_;
    set_ = pthread_setaffinity_np(handle_, sizeof others_, &others_) == 0;
#else
    static_cast<void>(cpu);
#endif
  }

 private:
  std::thread::native_handle_type handle_;
#if defined(__linux__)
  cpu_set_t all_, others_;
  bool set_ = false;
#endif
};

thread_local bool is_worker = false;

// Threads that wait to join a call. A caller opens worker slots, waits a while and closes them; those
// who have taken one are its team.
class Pool {
 public:
  bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  // Opens n worker slots for so many microseconds; returns how many are taken.
  int gather(int n, int microseconds) {
    n = grow(n);
    if (n == 0) return 0;
    keep_apart();
    const Slots open{++round_, static_cast<std::uint16_t>(n), static_cast<std::uint16_t>(n)};
    start_.notify([&] { slots_.store(open); });
    Signal::spin_wait(microseconds, [this] { return slots_.load().free == 0; });
    Slots now = slots_.load(), closed;
    do {
      closed = now;
      closed.free = 0;
    } while (!slots_.compare_exchange_weak(now, closed));
    const int joined = n - now.free;
    if (joined > 0 && measured(round_)) measure(joined);
    return joined;
  }

  // Called by the caller where it begins and after it slept.
  void keep_apart() {
    const int cpu = this_cpu();
    if (cpu == cpu_) return;
    cpu_ = cpu;
    for (Worker& worker : workers_) worker.keep_off(cpu);
  }

  double barrier_latency() const { return barrier_latency_.load(std::memory_order_relaxed); }
  double barrier_latency_or_trial() {
    return trials_.fetch_add(1, std::memory_order_relaxed) % kTrials ? barrier_latency() : 0;
  }

  // Lets the `joined` ones run, and waits for them; ranks from n on have nothing to do.
  void run(int joined, int n, void (*task)(void*, int), void* argument) {
    running_.store(joined, std::memory_order_relaxed);
    keep_apart();
    go_.notify([&] {
      task_ = task, argument_ = argument, team_ = n, mode_ = FloatMode::now();
      gone_.store(round_);
    });
    if (n > 0) task(argument, 0);
    finish_.wait([this] { return running_ == 0; });
  }

 private:
  struct alignas(8) Slots {  // aligned as one word, which clang wants to see of an atomic's type
    std::uint32_t round;
    std::uint16_t total, free;
  };

  // Whether the team of a round finds out what a barrier costs; not the first, whose threads are new.
  static bool measured(std::uint32_t round) { return round % 2 == 0; }

  // The least time of those that it takes until all have answered. A longer one than before counts
  // little: it may be that a thread was held up.
  void measure(int joined) {
    using Clock = std::chrono::steady_clock;
    double least = kLongest;
    answers_.store(0, std::memory_order_relaxed);
    for (std::uint32_t i = 1; i <= kCalls; ++i) {
      const auto start = Clock::now();
      called_.store(round_ * kCalls + i, std::memory_order_release);
      Signal::spin_wait(kLongest, [&] {
        return answers_.load(std::memory_order_acquire) >= joined * static_cast<int>(i);
      });
      const double taken = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
      if (taken < least) least = taken;
    }
    const double before = barrier_latency();
    if (before > 0 && least > before) least = before + (least - before) / 8;
    barrier_latency_.store(least, std::memory_order_relaxed);
  }
  void answer(std::uint32_t round) {
    for (std::uint32_t i = 1; i <= kCalls; ++i) {
      Signal::spin_wait(kPatience, [&] {
        const std::uint32_t call = called_.load(std::memory_order_acquire) - round * kCalls;
        return call >= i && call <= kCalls;
      });
      answers_.fetch_add(1, std::memory_order_release);
    }
  }

  int count() const { return static_cast<int>(workers_.size()); }

  // Starts workers until there are n; returns how many there are, at most n.
  int grow(int n) {
    while (count() < n) {
      try {
        workers_.reserve(workers_.size() + 1);  // before there is a thread that could be lost
        workers_.emplace_back(std::thread([this] { work(); }));
      } catch (const std::exception&) {
        break;  // no more threads or memory to be had: fewer do the work
      }
      cpu_ = -1;
    }
    return count() < n ? count() : n;
  }

  void work() {
    is_worker = true;
    for (;;) {
      start_.wait([this] { return slots_.load().free > 0; });
      Slots now = slots_.load(), taken;
      do {
        taken = now;
        --taken.free;
      } while (now.free > 0 && !slots_.compare_exchange_weak(now, taken));
      if (now.free == 0) continue;
      if (measured(taken.round)) answer(taken.round);
      go_.wait([&] { return gone_ == taken.round; });
      const int rank = taken.total - taken.free;
      if (rank < team_) {
        const InFloatMode callers(mode_);
        task_(argument_, rank);
      }
      finish_.notify([this] { --running_; });
    }
  }

  // microseconds: how long a caller waits for an answer, and a worker for the call
  static constexpr int kLongest = 2, kPatience = 200;
  static constexpr unsigned kTrials = 64, kCalls = 2;

  std::atomic<bool> busy_{false};
  Signal start_, go_, finish_;
  std::atomic<Slots> slots_{Slots{0, 0, 0}};
  std::uint32_t round_ = 0;
  std::atomic<std::uint32_t> gone_{0};  // the round whose team runs or has run
  std::vector<Worker> workers_;
  int cpu_ = -1;  // the caller's, which the workers keep off
  void (*task_)(void*, int) = nullptr;
  void* argument_ = nullptr;
  int team_ = 0;
  FloatMode mode_ = FloatMode::now();  // the caller's
  std::atomic<int> running_{0};
  std::atomic<std::uint32_t> called_{0};
  std::atomic<int> answers_{0};
  std::atomic<double> barrier_latency_{0};
  std::atomic<unsigned> trials_{0};
};

std::atomic<Pool*> pool_{nullptr};
std::atomic<unsigned> generation_{0};

#if !defined(_WIN32)
// A forked child has no threads but this one: it starts with a new pool at its first call. Said as the
// library is loaded: of what is set up at first use, a fork may see the half.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  pool_.store(nullptr, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_relaxed);
});
#endif

// Never freed: its threads may be waiting when the process ends.
Pool& pool() {
  Pool* found = pool_.load(std::memory_order_acquire);
  if (found) return *found;
  Pool* made = new Pool;
  if (pool_.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *found;
}

}  // namespace

void Signal::relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("yield");
#endif
}

void Barrier::wait() {
  const unsigned round = round_.load(std::memory_order_relaxed);
  if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    signal_.notify([&] {
      waiting_.store(0, std::memory_order_relaxed);
      round_.store(round + 1);
    });
  } else if (!signal_.wait([&] { return round_ != round; }) && !is_worker) {
    pool().keep_apart();
  }
}

unsigned generation() { return generation_.load(std::memory_order_relaxed); }

double barrier_latency() { return pool().barrier_latency(); }
double barrier_latency_or_trial() { return pool().barrier_latency_or_trial(); }

ThreadTeam::ThreadTeam(int wanted, double microseconds) {
  if (wanted <= 1 || !pool().acquire()) return;
  pool_ = true;
  // Half of what others save is worth waiting for, but they come within 200 microseconds or, but for a
  // system that is slow to wake them, not at all: for those, a little of what a long call takes.
  const double soon = std::min(microseconds / 2, 200.0), late = std::min(microseconds / 64, 5e4);
  size_ = 1 + pool().gather(wanted - 1, static_cast<int>(std::max(soon, late)));
}

ThreadTeam::~ThreadTeam() {
  if (pool_) pool().release();
}

void ThreadTeam::run(int n, void (*task)(void*, int), void* argument) const {
  if (size_ == 1)
    task(argument, 0);
  else
    pool().run(size_ - 1, n, task, argument);
}

}  // namespace fastrnn

#endif  // defined(FASTRNN_THREADS)
