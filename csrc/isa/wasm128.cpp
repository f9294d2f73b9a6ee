#include "kernels/table.h"
#include "kernels/bf16_layout.h"
#include "runtime/portability.h"

#if defined(FASTRNN_WASM128)

namespace fastrnn {
namespace {
#include "isa/wasm128.h"

#include "kernels/engine.h"
}  // namespace

extern const KernelTable wasm128_table = make_table("wasm128");

}  // namespace fastrnn

#endif  // defined(FASTRNN_WASM128)
