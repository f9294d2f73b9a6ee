// What the kernels use of the GPU itself, as functions of a line or two. The emulator of the tests
// (tests/cuda/emulator.h) stands in for this file and has a twin of each.

#define FASTRNN_FN __device__ __forceinline__
#define FASTRNN_UNROLL _Pragma("unroll")

using Index = long long;
using Word = unsigned long long;

// Dynamic shared memory of the block.
template <class T>
FASTRNN_FN T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

FASTRNN_FN float fused(float a, float b, float c) { return fmaf(a, b, c); }
FASTRNN_FN double fused(double a, double b, double c) { return fma(a, b, c); }
FASTRNN_FN float to_integral(float a) { return rintf(a); }
FASTRNN_FN double to_integral(double a) { return rint(a); }
FASTRNN_FN float magnitude(float a) { return fabsf(a); }
FASTRNN_FN double magnitude(double a) { return fabs(a); }
FASTRNN_FN float with_sign(float a, float sign) { return copysignf(a, sign); }
FASTRNN_FN double with_sign(double a, double sign) { return copysign(a, sign); }
// 2^n for n within the exponent's range
FASTRNN_FN float power_of_two(float n) { return __int_as_float((static_cast<int>(n) + 127) << 23); }
FASTRNN_FN double power_of_two(double n) {
  return __longlong_as_double((static_cast<long long>(n) + 1023) << 52);
}
FASTRNN_FN Word product_high(Word a, Word b) { return __umul64hi(a, b); }

// What passes between the blocks of one launch. Loads and stores of others' numbers go to the L2
// cache, which all blocks share.
FASTRNN_FN float load_fresh(const float* p) { return __ldcg(p); }
FASTRNN_FN double load_fresh(const double* p) { return __ldcg(p); }
FASTRNN_FN unsigned load_acquire(const unsigned* p) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
FASTRNN_FN void add_release(unsigned* p, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
FASTRNN_FN Word nanoseconds() {
  Word now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
FASTRNN_FN void wait_a_little() { __nanosleep(20); }
FASTRNN_FN float not_a_number(float) { return __int_as_float(0x7fffffff); }
FASTRNN_FN double not_a_number(double) { return __longlong_as_double(0x7fffffffffffffffll); }
