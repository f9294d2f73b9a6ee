// How a thread's processor rounds, and whether it takes denormal numbers for zeros.
#pragma once

#include <cfenv>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {

class FloatMode {
 public:
  bool operator!=(const FloatMode& other) const { return bits_ != other.bits_; }

#if defined(__x86_64__) || defined(_M_X64)
  // MXCSR without the flags of what has happened, which are the thread's own.
  static FloatMode now() { return FloatMode(_mm_getcsr() & ~kFlags); }
  void set() const { _mm_setcsr((_mm_getcsr() & kFlags) | bits_); }
  FloatMode flushing() const { return FloatMode(bits_ | kFlushResults | kFlushOperands); }

 private:
  using Bits = unsigned;
  static constexpr Bits kFlags = 0x3f, kFlushResults = 1u << 15, kFlushOperands = 1u << 6;
#elif defined(__aarch64__) && defined(__GNUC__)
  static FloatMode now() {
    Bits bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return FloatMode(bits);
  }
  void set() const { asm volatile("msr fpcr, %0" : : "r"(bits_)); }
  FloatMode flushing() const { return FloatMode(bits_ | kFlush); }

 private:
  using Bits = std::uint64_t;
  static constexpr Bits kFlush = 1u << 24;
#else  // rounding is all that the language knows of
  static FloatMode now() { return FloatMode(std::fegetround()); }
  void set() const { std::fesetround(bits_); }
  FloatMode flushing() const { return *this; }

 private:
  using Bits = int;
#endif
  explicit FloatMode(Bits bits) : bits_(bits) {}
  Bits bits_;
};

// A mode as long as this lives, then the one before.
class InFloatMode {
 public:
  explicit InFloatMode(const FloatMode& mode) : before_(FloatMode::now()) {
    if (mode != before_) mode.set();
  }
  ~InFloatMode() {
    if (FloatMode::now() != before_) before_.set();
  }
  InFloatMode(const InFloatMode&) = delete;
  InFloatMode& operator=(const InFloatMode&) = delete;

 private:
  const FloatMode before_;
};

}  // namespace fastrnn
