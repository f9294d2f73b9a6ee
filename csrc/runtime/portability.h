// What differs between compilers. Include before any target region.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__x86_64__) || defined(_M_X64)
#define FASTRNN_X86 1
#include <immintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#define FASTRNN_ARM64 1
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#define FASTRNN_WASM128 1
#include <wasm_simd128.h>
#endif

// WebAssembly has no fused multiply-add, and its relaxed one may round once or twice: a product that is
// rounded and a sum take its place in all kernels, the scalar ones too (docs/platforms.md).
#if defined(__wasm__) && !defined(FASTRNN_UNFUSED)
#define FASTRNN_UNFUSED 1
#endif

// WebAssembly has threads where it is asked for them.
#if !defined(__EMSCRIPTEN__) || defined(__EMSCRIPTEN_PTHREADS__)
#define FASTRNN_THREADS 1
#endif

// A test build may leave out the instruction set that takes longest to compile.
#if defined(FASTRNN_X86) && !defined(FASTRNN_NO_AVX512)
#define FASTRNN_HAS_AVX512 1
#endif

// Dot products of bfloat16, which are written in GNU assembler. GCC can ask for them from 10 on.
#if defined(FASTRNN_HAS_AVX512) && !defined(_MSC_VER) && (defined(__clang__) || __GNUC__ >= 10)
#define FASTRNN_HAS_DOTS 1
#endif

// The tile unit: GCC knows it from 11 on, and Linux gives the permission to use it. Not clang, whose
// target regions do not nest.
#if defined(FASTRNN_HAS_AVX512) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 11
#define FASTRNN_HAS_TILES 1
#endif

// FASTRNN_FN: must be inlined, since vectors are passed by value and must stay in registers.
// FASTRNN_REGION(isa): all functions up to FASTRNN_REGION_END are compiled for that instruction set.
// A region and not a compiler flag for the file: inline functions of the standard library are
// shared by the linker and must not be compiled for more than the baseline.
#if defined(_MSC_VER) && !defined(__clang__)
#define FASTRNN_FN __forceinline
#define FASTRNN_NOINLINE __declspec(noinline)
#define FASTRNN_UNROLL
#define FASTRNN_REGION(isa)
#define FASTRNN_REGION_END
#elif defined(__clang__)
#define FASTRNN_FN inline __attribute__((always_inline))
#define FASTRNN_NOINLINE __attribute__((noinline))
#define FASTRNN_UNROLL _Pragma("unroll")
#define FASTRNN_PRAGMA(text) _Pragma(#text)
#define FASTRNN_REGION(isa) \
  FASTRNN_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define FASTRNN_REGION_END _Pragma("clang attribute pop")
#else
#define FASTRNN_FN inline __attribute__((always_inline))
#define FASTRNN_NOINLINE __attribute__((noinline))
#define FASTRNN_UNROLL _Pragma("GCC unroll 16")
#define FASTRNN_PRAGMA(text) _Pragma(#text)
#define FASTRNN_REGION(isa) _Pragma("GCC push_options") FASTRNN_PRAGMA(GCC target(isa))
#define FASTRNN_REGION_END _Pragma("GCC pop_options")
#endif

// Fetches a cache line, `bytes` behind p: into the L1 cache if it is to be written, else into the L2
// cache. It may lie past an array's end.
template <bool kToWrite>
FASTRNN_FN void prefetch(const void* p, std::intptr_t bytes) {
  const auto at = reinterpret_cast<const char*>(reinterpret_cast<std::intptr_t>(p) + bytes);
#if defined(_MSC_VER) && !defined(__clang__)
#if FASTRNN_X86
  _mm_prefetch(at, kToWrite ? _MM_HINT_T0 : _MM_HINT_T1);
#endif
#else
  __builtin_prefetch(at, kToWrite, kToWrite ? 3 : 2);
#endif
}

// Lets other threads see, at the next barrier, what vectors stored by stream().
FASTRNN_FN void end_streams() {
#if FASTRNN_X86
  _mm_sfence();
#endif
}
