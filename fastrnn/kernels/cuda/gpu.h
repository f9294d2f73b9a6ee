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
