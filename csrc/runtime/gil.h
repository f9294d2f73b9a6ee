// Work without Python's global interpreter lock.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/float_mode.h"
#include "driver/pass.h"

namespace fastrnn {

// What fastrnn.set_flush_denormals has set.
inline std::atomic<bool> flush_denormals{false};

// As long as this lives, this thread runs without the lock. If it is asked whether the call is
// interrupted, it lets Python call the handlers of signals now and then.
class WithoutGil final : public Listener {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {
    if (flushes_) mode_.flushing().set();
  }
  ~WithoutGil() {
    if (flushes_) mode_.set();
    acquire();
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  bool interrupted() override {
    const auto now = Clock::now();
    if (next_ == Clock::time_point()) next_ = now + kApart;
    if (!raised_ && now >= next_) handle_signals();
    return raised_;
  }

  // Whether a handler has raised an exception, which is Python's current one.
  bool raised() const { return raised_; }

 private:
  using Clock = std::chrono::steady_clock;

  // So seldom that waiting for the lock, where other threads run Python code, takes no more than a
  // fiftieth of the call.
  void handle_signals() {
    const InFloatMode callers(mode_);
    const auto start = Clock::now();
    acquire();
    raised_ = PyErr_CheckSignals() != 0;  // of threads but the main one it asks nothing
    state_ = PyEval_SaveThread();
    const auto end = Clock::now();
    next_ = end + std::max<Clock::duration>(kApart, 50 * (end - start));
  }

  // A thread that asks for the lock as the interpreter ends does not get it. From 3.14 on Python lets it
  // wait for ever. Before, it ends the thread, which unwinds this stack, destructors of Python's objects
  // and all, without the lock, and where one of them lets no exception pass ends the process: it waits
  // for ever here instead. Nothing is lost, since the process ends.
  void acquire() noexcept {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

  static constexpr std::chrono::milliseconds kApart{50};

  PyThreadState* state_;
  const FloatMode mode_ = FloatMode::now();  // the caller's
  const bool flushes_ = flush_denormals;
  Clock::time_point next_{};  // when it asks again
  bool raised_ = false;
};

}  // namespace fastrnn
