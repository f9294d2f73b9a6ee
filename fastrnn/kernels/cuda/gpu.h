// What the kernels use of the GPU itself, as functions of a line or two. The emulator of the tests
// (tests/cuda/emulator.h) stands in for this file and has a twin of each.

#define FASTRNN_FN __device__ __forceinline__
// What the CPU's kernels call: here it chooses by constants, and little is left of it.
#define FASTRNN_NOINLINE FASTRNN_FN
#define FASTRNN_UNROLL _Pragma("unroll")
#define FASTRNN_PRAGMA(text) _Pragma(#text)
#define FASTRNN_UNROLL_BY(n) FASTRNN_PRAGMA(unroll n)

// What a kernel says of its launch: that FASTRNN_CLUSTER blocks side by side in the grid's first
// direction are a cluster.
#ifdef FASTRNN_CLUSTER
#define FASTRNN_CLUSTERED __cluster_dims__(FASTRNN_CLUSTER, 1, 1)
#else
#define FASTRNN_CLUSTERED
#endif

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
FASTRNN_FN float magnitude(float a) { return fabsf(a); }
FASTRNN_FN double magnitude(double a) { return fabs(a); }
FASTRNN_FN float with_sign(float a, float sign) { return copysignf(a, sign); }
FASTRNN_FN double with_sign(double a, double sign) { return copysign(a, sign); }
// 2^(n + bias - the type's own), n in the low bits of `sum`
FASTRNN_FN float power_of_two(float sum, unsigned bias) {
  return __uint_as_float((__float_as_uint(sum) + bias) << 23);
}
FASTRNN_FN double power_of_two(double sum, unsigned bias) {
  return __longlong_as_double((__double_as_longlong(sum) + bias) << 52);
}
FASTRNN_FN Word product_high(Word a, Word b) { return __umul64hi(a, b); }

// What passes between the blocks of one launch. Loads and stores of others' numbers go to the L2
// cache, which all blocks share.
FASTRNN_FN float load_fresh(const float* p) { return __ldcg(p); }
FASTRNN_FN double load_fresh(const double* p) { return __ldcg(p); }
// Four neighbours, p a multiple of 16 bytes.
FASTRNN_FN void load_fresh(const float* p, float (&to)[4]) {
  const float4 v = __ldcg(reinterpret_cast<const float4*>(p));
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
FASTRNN_FN void load_fresh(const double* p, double (&to)[4]) {
  const double2 a = __ldcg(reinterpret_cast<const double2*>(p));
  const double2 b = __ldcg(reinterpret_cast<const double2*>(p) + 1);
  to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}
// Four of bfloat16, in two words; p a multiple of 8 bytes.
FASTRNN_FN void load_fresh(const unsigned short* p, unsigned (&to)[2]) {
  const uint2 v = __ldcg(reinterpret_cast<const uint2*>(p));
  to[0] = v.x, to[1] = v.y;
}
// Numbers that others may be writing: loads see each of them whole, as it is or as it was. Four
// neighbours, p aligned as above.
FASTRNN_FN float load_relaxed(const float* p) {
  float value;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(value) : "l"(p) : "memory");
  return value;
}
FASTRNN_FN void load_relaxed(const float* p, float (&to)[4]) {
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
               : "l"(p)
               : "memory");
}
FASTRNN_FN void load_relaxed(const double* p, double (&to)[4]) {
  FASTRNN_UNROLL
  for (int i = 0; i < 4; i += 2)
    asm volatile("ld.relaxed.gpu.global.v2.f64 {%0,%1}, [%2];"
                 : "=d"(to[i]), "=d"(to[i + 1])
                 : "l"(p + i)
                 : "memory");
}
FASTRNN_FN void load_relaxed(const unsigned short* p, unsigned (&to)[2]) {
  asm volatile(
      "{.reg .b16 a, b, c, d; ld.relaxed.gpu.global.v4.b16 {a,b,c,d}, [%2]; "
      "mov.b32 %0, {a,b}; mov.b32 %1, {c,d};}"
      : "=r"(to[0]), "=r"(to[1])
      : "l"(p)
      : "memory");
}
FASTRNN_FN void store_relaxed(float* p, float value) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(value) : "memory");
}
FASTRNN_FN void store_relaxed(double* p, double value) {
  asm volatile("st.relaxed.gpu.global.f64 [%0], %1;" ::"l"(p), "d"(value) : "memory");
}
FASTRNN_FN void store_relaxed(unsigned short* p, unsigned short value) {
  asm volatile("st.relaxed.gpu.global.b16 [%0], %1;" ::"l"(p), "h"(value) : "memory");
}
FASTRNN_FN unsigned load_acquire(const unsigned* p) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
FASTRNN_FN void add_release(unsigned* p, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
// A cluster of blocks, compute capability 9.0 and later. Whoever waits sees what all of its threads
// had stored when they arrived.
FASTRNN_FN void cluster_arrive() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
FASTRNN_FN void cluster_wait() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Where a pointer into this block's shared memory points in that of a block of its cluster.
FASTRNN_FN unsigned shared_of(unsigned block, const void* p) {
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(there)
      : "r"(static_cast<unsigned>(__cvta_generic_to_shared(p))), "r"(block));
  return there;
}
FASTRNN_FN void store_to(unsigned block, float* p, float value) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(shared_of(block, p)), "f"(value)
               : "memory");
}
FASTRNN_FN void store_to(unsigned block, double* p, double value) {
  asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(shared_of(block, p)), "d"(value)
               : "memory");
}
FASTRNN_FN void store_to(unsigned block, unsigned short* p, unsigned short value) {
  asm volatile("st.shared::cluster.b16 [%0], %1;" ::"r"(shared_of(block, p)), "h"(value)
               : "memory");
}
// Four neighbours in this block's own.
FASTRNN_FN void load_shared(const float* p, float (&to)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
FASTRNN_FN void load_shared(const double* p, double (&to)[4]) {
  const double2 a = reinterpret_cast<const double2*>(p)[0];
  const double2 b = reinterpret_cast<const double2*>(p)[1];
  to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}
FASTRNN_FN void load_shared(const unsigned short* p, unsigned (&to)[2]) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  to[0] = v.x, to[1] = v.y;
}
FASTRNN_FN Word nanoseconds() {
  Word now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
FASTRNN_FN void wait_a_little() { __nanosleep(20); }
// Ends the launch with an error at the next synchronisation, after which the context is of no use.
FASTRNN_FN void stop() { asm volatile("trap;"); }
FASTRNN_FN float not_a_number(float) { return __int_as_float(0x7fffffff); }
FASTRNN_FN double not_a_number(double) { return __longlong_as_double(0x7fffffffffffffffll); }

// What the lanes of a warp do together. Fragments are those of the PTX manual: lane l is number
// l % 4 of group l / 4.
template <class T>
FASTRNN_FN T from_lane_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffff, value, mask);
}
FASTRNN_FN unsigned bits_of(float a) { return __float_as_uint(a); }
FASTRNN_FN Word bits_of(double a) { return static_cast<Word>(__double_as_longlong(a)); }
FASTRNN_FN float float_of(unsigned bits) { return __uint_as_float(bits); }
// Rounded to 11 bits, halves away from zero; compute capability 8.0 and later, as what follows.
FASTRNN_FN unsigned to_tf32(float a) {
  unsigned rounded;
  asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(a));
  return rounded;
}
// The same, halves to either side: later GPUs have an instruction for it.
FASTRNN_FN unsigned to_near_tf32(float a) {
#if __CUDA_ARCH__ >= 900
  unsigned rounded;
  asm volatile("cvt.rn.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(a));
  return rounded;
#else
  return to_tf32(a);
#endif
}
// Two numbers rounded to 8 bits, halves to even.
FASTRNN_FN unsigned to_bf16(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// sums (16, 8) += a (16, 8) * b (8, 8)
FASTRNN_FN void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// sums (16, 8) += a (16, 16) * b (16, 8)
FASTRNN_FN void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
