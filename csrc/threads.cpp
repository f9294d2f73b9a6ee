#include "threads.h"

#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {
namespace {

class Pool {
 public:
  bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  // Starts workers until there are n; returns how many there are, at most n.
  int grow(int n) {
    while (workers_ < n) {
      try {
        std::thread([this, rank = workers_ + 1, seen = round_.load()] {
          work(rank, seen);
        }).detach();
      } catch (const std::system_error&) {
        break;  // no more threads to be had from the system: fewer do the work
      }
      ++workers_;
    }
    return workers_ < n ? workers_ : n;
  }

  void run(int n, void (*task)(void*, int), void* argument) {
    start_.raise([&] {
      task_ = task, argument_ = argument, team_ = n;
      running_.store(workers_, std::memory_order_relaxed);
      round_.fetch_add(1, std::memory_order_release);
    });
    task(argument, 0);
    finish_.wait([this] { return running_.load(std::memory_order_acquire) == 0; });
  }

 private:
  void work(int rank, unsigned seen) {
    for (;; ++seen) {
      start_.wait([&] { return round_.load(std::memory_order_acquire) != seen; });
      if (rank < team_) task_(argument_, rank);
      finish_.raise([this] { running_.fetch_sub(1, std::memory_order_release); });
    }
  }

  std::atomic<bool> busy_{false};
  Signal start_, finish_;
  std::atomic<unsigned> round_{0};
  int workers_ = 0;
  void (*task_)(void*, int) = nullptr;
  void* argument_ = nullptr;
  int team_ = 0;
  std::atomic<int> running_{0};
};

std::atomic<Pool*> pool_{nullptr};

// Never freed: its threads may be waiting when the process ends.
Pool& pool() {
  Pool* found = pool_.load(std::memory_order_acquire);
  if (found) return *found;
  Pool* made = new Pool;
  if (pool_.compare_exchange_strong(found, made, std::memory_order_acq_rel)) {
#if !defined(_WIN32)
    // a forked child has no threads but this one: it starts with a new pool at its first call
    static std::once_flag once;
    std::call_once(once, [] {
      pthread_atfork(nullptr, nullptr, [] { pool_.store(nullptr, std::memory_order_release); });
    });
#endif
    return *made;
  }
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
    signal_.raise([&] {
      waiting_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    });
  } else {
    signal_.wait([&] { return round_.load(std::memory_order_acquire) != round; });
  }
}

Lease::Lease(int wanted) {
  if (wanted <= 1 || !pool().acquire()) return;
  size_ = 1 + pool().grow(wanted - 1);
  if (size_ == 1) pool().release();
}

Lease::~Lease() {
  if (size_ > 1) pool().release();
}

void Lease::run(int n, void (*task)(void*, int), void* argument) const {
  if (n == 1)
    task(argument, 0);
  else
    pool().run(n, task, argument);
}

}  // namespace fastrnn
