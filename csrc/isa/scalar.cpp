#include "kernels/table.h"
#include "kernels/bf16_layout.h"
#include "runtime/portability.h"

namespace fastrnn {
namespace {
#include "isa/scalar.h"

#include "kernels/engine.h"
}  // namespace

extern const KernelTable scalar_table = make_table("scalar");

}  // namespace fastrnn
