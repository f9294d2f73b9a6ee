// A small pool of threads for the kernels. Not OpenMP: GNU's runtime hangs in a process that was
// forked after its first use, and ThreadSanitizer cannot see into it (docs/adr).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace fastrnn {

// A place to wait for a change of some atomics: by spinning for some microseconds, then
// asleep. Asleep and not yielding: where other programs want the cores, a thread that yields keeps
// the one that it waits for from running, for milliseconds at a time. `Done` loads and `change` stores
// in sequential order (memory_order_seq_cst): either who waits sees the change, or who makes it sees
// that somebody sleeps.
class Signal {
 public:
  // Returns whether the change came before it slept.
  template <class Done>
  bool wait(const Done& done) {
    if (spin_wait(kAwake, done)) return true;
    do {
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleepers_;
      if (!done()) changed_.wait(lock);
      --sleepers_;
    } while (!spin_wait(kAwake, done));  // who wakes too late for one change waits for the next
    return false;
  }

  // Spins for so many microseconds at most; returns whether the change came.
  template <class Done>
  static bool spin_wait(int microseconds, const Done& done) {
    if (poll(done)) return true;
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::microseconds(microseconds);
    do {
      if (poll(done)) return true;
    } while (Clock::now() < end);
    return false;
  }

  // Makes the change and wakes those who wait for it.
  template <class Change>
  void notify(const Change& change) {
    change();
    if (sleepers_ == 0) return;
    mutex_.lock();  // so that who has spun in vain has gone to sleep
    mutex_.unlock();
    changed_.notify_all();
  }

 private:
  static constexpr int kAwake = 100;  // microseconds

  static void relax();

  template <class Done>
  static bool poll(const Done& done) {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      relax();
    }
    return false;
  }

  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// A barrier for the threads of one call.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  [[maybe_unused]] const int size_;
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> round_{0};
  Signal signal_;
};

// Microseconds that a barrier takes, as teams measure it now and then; 0 before the first one. It is a few
// tenths for threads that share a cache, several times as much for others, and a system that moves
// threads makes one of the other.
double barrier_latency();
// The same for a call that is to be planned; 0 at times, so that what is not shared gets another trial.
double barrier_latency_or_trial();

// The number of forks between this process and the one that loaded the library.
unsigned generation();

// The threads of one call: the caller, and those of the pool that come when they are asked to. While
// another call has the pool, and where none comes in time, the caller is alone and does all the work
// itself. Results never depend on the number of threads.
class ThreadTeam {
 public:
  // microseconds: what the call takes one thread, roughly
  ThreadTeam(int wanted, double microseconds);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  // Runs task(argument, rank) for rank in 0 .. n-1, all at the same time, n <= size(); rank 0 is
  // the caller, whose floating-point mode all have. Returns when all are done. Once a team.
  void run(int n, void (*task)(void*, int), void* argument) const;

 private:
  int size_ = 1;
  [[maybe_unused]] bool pool_ = false;  // this team has the pool
};

}  // namespace fastrnn
