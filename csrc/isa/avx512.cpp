#include "kernels/table.h"
#include "kernels/bf16_layout.h"
#include "runtime/portability.h"

#if defined(FASTRNN_HAS_AVX512)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 headers raise it falsely (_mm512_undefined_ps)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#ifdef FASTRNN_HAS_DOTS
#define FASTRNN_DOTS 1
#endif
#ifdef FASTRNN_HAS_TILES
#define FASTRNN_TILE_UNIT "avx2,fma,avx512f,avx512dq,avx512bf16,amx-tile,amx-bf16"
#endif

FASTRNN_REGION("avx2,fma,avx512f,avx512dq")
namespace fastrnn {
namespace {
#include "isa/avx512.h"

#include "kernels/engine.h"
}  // namespace

extern const KernelTable avx512_table = make_table("avx512");
#ifdef FASTRNN_DOTS
extern const KernelTable avx512bf16_table = make_table("avx512bf16", true);
#endif
#ifdef FASTRNN_TILE_UNIT
extern const KernelTable amx_table = make_table("amx", true, true);
#endif

}  // namespace fastrnn
FASTRNN_REGION_END

#endif  // defined(FASTRNN_HAS_AVX512)
