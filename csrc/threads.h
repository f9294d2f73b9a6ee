// A small pool of threads for the kernels. Not OpenMP: GNU's runtime hangs in a process that was
// forked after its first use, and ThreadSanitizer cannot see into it (docs/adr).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace fastrnn {

// A place to wait for a change of some atomics: by looking at them for some microseconds, then
// asleep. Asleep and not yielding: where other programs want the cores, a thread that yields keeps
// the one that it waits for from running, for milliseconds at a time.
class Signal {
 public:
  // Returns whether the change came before it slept.
  template <class Done>
  bool wait(const Done& done, bool briefly = false) {
    if (spin(done, briefly ? kBriefSpins : kSpins)) return true;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, done);
    return false;
  }

  // Waits so long at most: a tenth awake, as a wait for a thread that is awake takes less, then asleep.
  template <class Done>
  bool wait_for(double microseconds, const Done& done) {
    if (spin(done, 1 + static_cast<int>(microseconds / 10 / kSpin))) return true;
    if (microseconds < kSleep) return false;
    // of the system's clock, since ThreadSanitizer knows no wait by another
    const auto end = std::chrono::system_clock::now() +
                     std::chrono::microseconds(static_cast<long>(microseconds));
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, end, done);
  }

  // Makes the change and wakes those who wait for it.
  template <class Change>
  void raise(const Change& change) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      change();
    }
    changed_.notify_all();
  }

 private:
  static constexpr double kSpin = 0.05;  // microseconds of one look
  static constexpr int kSpins = 2000, kBriefSpins = 100;
  static constexpr double kSleep = 50;  // going to sleep and waking up takes some microseconds

  static void relax();

  template <class Done>
  static bool spin(const Done& done, int times) {
    for (int i = 0; i < times; ++i) {
      if (done()) return true;
      relax();
    }
    return false;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
};

// Where the threads of one call meet, again and again. Threads that share a CPU, since another program
// has theirs, run only while the others sleep: where looking was in vain, they meet the next kBrief
// times without looking for long. A system may also wake a thread on the CPU of the one that it meets,
// and leave it there, beside one that is idle: such a thread moves.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  static constexpr int kBrief = 16;

  const int size_;
  std::atomic<int> brief_{0};  // so many meetings are still to be brief
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> round_{0};
  Signal signal_;
};

// The threads of one call: the caller, and those of the pool that come when they are asked to. While
// another call has the pool, and where none comes in time, the caller is alone and does all the work
// itself. Results never depend on the number of threads.
class Lease {
 public:
  // microseconds: what the call takes one thread, roughly
  Lease(int wanted, double microseconds);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int size() const { return size_; }

  // Runs task(argument, rank) for rank in 0 .. n-1, all at the same time, n <= size(); rank 0 is
  // the caller. Returns when all are done. Once a lease.
  void run(int n, void (*task)(void*, int), void* argument) const;

 private:
  int size_ = 1;
  bool pool_ = false;  // this lease has the pool
};

}  // namespace fastrnn
