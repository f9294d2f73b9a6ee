#include "driver/quantize.h"

#include "driver/weights.h"

namespace fastrnn {
namespace {

// Rounded to the nearest, ties to even; NaN stays NaN.
Half to_bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return static_cast<Half>(bits >> 16 | 0x40);
  return static_cast<Half>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// One column of K weights, `stride` apart. A scale of NaN tells of weights that are not finite.
float to_int8(const float* w, Index K, Index stride, std::int8_t* out) {
  float most = 0;
  bool finite = true;
  for (Index k = 0; k < K; ++k) {
    const float size = w[k * stride] < 0 ? -w[k * stride] : w[k * stride];
    finite = finite && size - size == 0;
    if (size > most) most = size;
  }
  const float scale = finite ? most / 127 : std::numeric_limits<float>::quiet_NaN();
  for (Index k = 0; k < K; ++k) {
    float q = finite && scale > 0 ? w[k * stride] / scale : 0;
    q = q > 127 ? 127 : q < -127 ? -127 : q;  // a scale that is no normal number is a coarse one
    out[k * stride] = static_cast<std::int8_t>(q < 0 ? q - 0.5f : q + 0.5f);
  }
  return scale;
}

}  // namespace

void quantize_panels(const Panels& panels, Index K, WeightType type, const float* packed,
                     char* out) {
  if (type == WeightType::bfloat16) {
    Half* to = reinterpret_cast<Half*>(out);
    for (Index i = 0; i < panels.size(K); ++i) to[i] = to_bfloat16(packed[i]);
    return;
  }
  std::int8_t* to = reinterpret_cast<std::int8_t*>(out);
  float* scales = reinterpret_cast<float*>(out + whole_lines(panels.size(K)));
  for (Index p = 0; p < panels.count; ++p) {
    const int vectors = panels.vectors_in(p);
    const Index width = panels.together(vectors) * panels.lanes;
    for (Index done = 0; done < vectors * panels.lanes; done += width) {
      for (Index i = 0; i < width; ++i) *scales++ = to_int8(packed + i, K, width, to + i);
      packed += K * width, to += K * width;
    }
  }
}

}  // namespace fastrnn
