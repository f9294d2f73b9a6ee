// A small pool of threads for the kernels. Not OpenMP: GNU's runtime hangs in a process that was
// forked after its first use, and ThreadSanitizer cannot see into it (docs/adr).
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace fastrnn {

// A place to wait for a change of some atomics: by looking at them for some microseconds, then
// asleep. Asleep and not yielding: where other programs want the cores, a thread that yields keeps
// the one that it waits for from running, for milliseconds at a time.
class Signal {
 public:
  template <class Done>
  void wait(const Done& done) {
    if (spin(done)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, done);
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
  static void relax();

  template <class Done>
  static bool spin(const Done& done) {
    for (int i = 0; i < 2000; ++i) {  // of about 50 ns
      if (done()) return true;
      relax();
    }
    return false;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
};

// Where the threads of one call meet.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  const int size_;
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> round_{0};
  Signal signal_;
};

// The right to use the pool for one call. While another call has it, the lease is of one thread: the
// caller does all the work itself. Results never depend on the number of threads.
class Lease {
 public:
  explicit Lease(int wanted);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int size() const { return size_; }

  // Runs task(argument, rank) for rank in 0 .. n-1, all at the same time, n <= size(); rank 0 is
  // the caller. Returns when all are done.
  void run(int n, void (*task)(void*, int), void* argument) const;

 private:
  int size_ = 1;
};

}  // namespace fastrnn
