// What threads.h promises where there are no threads: a call is its caller alone.
#include "runtime/threads.h"

#include "runtime/portability.h"

#if !defined(FASTRNN_THREADS)

namespace fastrnn {

void Signal::relax() {}
void Barrier::wait() {}

unsigned generation() { return 0; }
double barrier_latency() { return 0; }
double barrier_latency_or_trial() { return 0; }

ThreadTeam::ThreadTeam(int, double) {}
ThreadTeam::~ThreadTeam() = default;
void ThreadTeam::run(int, void (*task)(void*, int), void* argument) const { task(argument, 0); }

}  // namespace fastrnn

#endif  // !defined(FASTRNN_THREADS)
