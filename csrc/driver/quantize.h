// Weights of a frozen layer in bfloat16 or int8, for calls of few rows, where reading them is the time.
#pragma once

#include "driver/pass.h"

namespace fastrnn {

// Panels in a narrow type, from those in floats; behind those of int8 the scale of each output.
void quantize_panels(const Panels& panels, Index K, WeightType type, const float* packed,
                     char* out);

}  // namespace fastrnn
