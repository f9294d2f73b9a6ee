// The end of a call before its time, where a signal wants it, as Ctrl-C does.
#pragma once

#include <atomic>
#include <limits>

#include "driver/pass.h"

namespace fastrnn {

// The caller's thread asks now and then between steps; all threads of the call leave for what it says.
class Interrupt {
 public:
  // step: what one takes, roughly, in microseconds
  Interrupt(Listener* listener, double step) : listener_(listener) {
    if (!listener_) return;
    constexpr double kApart = 1000;  // microseconds, or more where the kernels are slow
    apart_ = step * 1e6 > kApart ? static_cast<Index>(kApart / step) + 1 : 1000000;
    next_ = apart_;
  }

  // By the caller's thread, before step s. `barrier`: its threads wait for each other at each step.
  void ask(Index s, bool barrier) {
    if (s < next_) return;
    next_ = s + apart_;
    // threads that wait for each other leave after the same step, lest one wait for another that has left
    if (listener_->interrupted()) last_.store(barrier ? s : 0, std::memory_order_relaxed);
  }

  // By every thread, after step s and its barrier.
  bool ends(Index s) const { return s >= last_.load(std::memory_order_relaxed); }

 private:
  static constexpr Index kNever = std::numeric_limits<Index>::max();

  Listener* listener_;
  Index apart_ = 0, next_ = kNever;
  std::atomic<Index> last_{kNever};
};

}  // namespace fastrnn
