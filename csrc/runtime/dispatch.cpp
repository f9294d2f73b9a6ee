#include "runtime/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "runtime/portability.h"

#if defined(FASTRNN_X86) && defined(_MSC_VER)
#include <intrin.h>
#elif defined(FASTRNN_HAS_TILES)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastrnn {

extern const KernelTable scalar_table;
#if defined(FASTRNN_X86)
extern const KernelTable avx2_table;
extern const KernelTable avx512_table;
#ifdef FASTRNN_HAS_DOTS
extern const KernelTable avx512bf16_table;
#endif
#ifdef FASTRNN_HAS_TILES
extern const KernelTable amx_table;
#endif
#elif defined(FASTRNN_ARM64)
extern const KernelTable neon_table;
#elif defined(FASTRNN_WASM128)
extern const KernelTable wasm128_table;
#endif

namespace {

#if defined(FASTRNN_X86) && defined(_MSC_VER) && !defined(__clang__)
// The processor offers it and the operating system saves its registers (XCR0).
bool supports(unsigned leaf7_ebx, unsigned long long xcr0) {
  int r[4];
  __cpuid(r, 1);
  const bool osxsave = r[2] >> 27 & 1, fma = r[2] >> 12 & 1;
  if (!osxsave || !fma || (_xgetbv(0) & xcr0) != xcr0) return false;
  __cpuidex(r, 7, 0);
  return (static_cast<unsigned>(r[1]) & leaf7_ebx) == leaf7_ebx;
}
bool has_avx2() { return supports(1u << 5, 0x6); }
[[maybe_unused]] bool has_avx512() { return supports(1u << 5 | 1u << 16 | 1u << 17, 0xe6); }
#elif defined(FASTRNN_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}
#endif

#ifdef FASTRNN_HAS_DOTS
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

#ifdef FASTRNN_HAS_TILES
// Tiles and their bfloat16 products, and the operating system's permission to use them, which it
// gives on demand: the tiles enlarge what it saves of a thread.
bool has_amx() {
  unsigned a, b, c, d;
  if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, products = d >> 22 & 1;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return tiles && products && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

// best first
std::vector<const KernelTable*> usable_tables() {
  std::vector<const KernelTable*> tables;
#if defined(FASTRNN_X86)
#ifdef FASTRNN_HAS_TILES
  if (has_amx()) tables.push_back(&amx_table);
#endif
#ifdef FASTRNN_HAS_DOTS
  if (has_avx512bf16()) tables.push_back(&avx512bf16_table);
#endif
#ifdef FASTRNN_HAS_AVX512
  if (has_avx512()) tables.push_back(&avx512_table);
#endif
  if (has_avx2()) tables.push_back(&avx2_table);
#elif defined(FASTRNN_ARM64)
  tables.push_back(&neon_table);
#elif defined(FASTRNN_WASM128)
  tables.push_back(&wasm128_table);
#endif
  tables.push_back(&scalar_table);
  return tables;
}

const KernelTable& choose() {
  const std::vector<const KernelTable*> tables = usable_tables();
  const char* forced = std::getenv("FASTRNN_ISA");
  if (!forced || !*forced) return *tables.front();
  std::string names;
  for (const KernelTable* table : tables) {
    if (std::string(forced) == table->isa) return *table;
    names += std::string(names.empty() ? "" : ", ") + table->isa;
  }
  throw std::runtime_error("FASTRNN_ISA must be one of " + names + " on this machine, got " +
                           forced);
}

}  // namespace

// No local static that is set once: a fork in the meantime would leave it locked in the child.
const KernelTable& kernels() {
  static std::atomic<const KernelTable*> chosen{nullptr};
  const KernelTable* found = chosen.load(std::memory_order_acquire);
  if (!found)
    chosen.store(found = &choose(), std::memory_order_release);  // the same for all threads
  return *found;
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : usable_tables()) names.emplace_back(table->isa);
  return names;
}

}  // namespace fastrnn
