// A small pool of threads for the kernels. Not OpenMP: GNU's runtime hangs in a process that was
// forked after its first use, and ThreadSanitizer cannot see into it (docs/adr).
#pragma once

#include <atomic>

namespace fastrnn {

// Where the threads of one call meet.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();

 private:
  const int size_;
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> round_{0};
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
