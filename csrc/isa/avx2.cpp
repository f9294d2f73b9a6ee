#include "kernels/table.h"
#include "kernels/bf16_layout.h"
#include "runtime/portability.h"

#if defined(FASTRNN_X86)

FASTRNN_REGION("avx2,fma")
namespace fastrnn {
namespace {
#include "isa/avx2.h"

#include "kernels/engine.h"
}  // namespace

extern const KernelTable avx2_table = make_table("avx2");

}  // namespace fastrnn
FASTRNN_REGION_END

#endif  // defined(FASTRNN_X86)
