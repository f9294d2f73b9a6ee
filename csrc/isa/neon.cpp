#include "kernels/table.h"
#include "kernels/bf16_layout.h"
#include "runtime/portability.h"

#if defined(FASTRNN_ARM64)

namespace fastrnn {
namespace {
#include "isa/neon.h"

#include "kernels/engine.h"
}  // namespace

extern const KernelTable neon_table = make_table("neon");

}  // namespace fastrnn

#endif  // defined(FASTRNN_ARM64)
