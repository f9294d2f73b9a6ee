#include "interrupt.h"
#include "kernel_table.h"
#include "portability.h"
#include "threads.h"

#if defined(FASTRNN_ARM64)

namespace fastrnn {
namespace {
#include "isa/neon.h"

#include "engine.h"
}  // namespace

extern const KernelTable neon_table = make_table("neon");

}  // namespace fastrnn

#endif  // defined(FASTRNN_ARM64)
