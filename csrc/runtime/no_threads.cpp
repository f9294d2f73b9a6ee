// What threads.h promises where there are no threads: a call is its caller alone.
#include "runtime/threads.h"

#include "runtime/portability.h"

#if !defined(FASTRNN_THREADS)

namespace fastrnn {

void Signal::relax() {}
void Barrier::wait() {}

unsigned generation() { return 0; }
double meeting() { return 0; }
double meeting_or_trial() { return 0; }

Lease::Lease(int, double) {}
Lease::~Lease() = default;
void Lease::run(int, void (*task)(void*, int), void* argument) const { task(argument, 0); }

}  // namespace fastrnn

#endif  // !defined(FASTRNN_THREADS)
