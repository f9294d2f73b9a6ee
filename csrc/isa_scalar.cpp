#include "interrupt.h"
#include "kernel_table.h"
#include "portability.h"
#include "threads.h"

namespace fastrnn {
namespace {
#include "isa/scalar.h"

#include "engine.h"
}  // namespace

extern const KernelTable scalar_table = make_table("scalar");

}  // namespace fastrnn
