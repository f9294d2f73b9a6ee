// Weights of a frozen layer in bfloat16 or int8, for calls of few rows, where reading them is the time.
//
// Panels as in panels.h, of narrower numbers; behind those of int8, in the same order, the scale of each
// output. One row widens them in registers, several rows widen a panel into memory of the thread's
// own and go on in floats: the same numbers, and so the same bits.

template <class V>
constexpr bool kNarrows = std::is_same_v<typename V::Real, float>;

FASTRNN_FN Index whole_lines(Index bytes) { return (bytes + 63) / 64 * 64; }

template <class V>
FASTRNN_FN Index narrow_bytes(const Panels<V>& panels, Index K, WeightType type) {
  if (type == WeightType::bfloat16) return whole_lines(panels.size(K) * 2);
  if (type == WeightType::int8)
    return whole_lines(panels.size(K)) + whole_lines(panels.size(1) * 4);
  return 0;
}

// The scales of int8 panels that begin at `at`.
template <class V>
FASTRNN_FN float* scales_of(const Panels<V>& panels, Index K, char* at) {
  return reinterpret_cast<float*>(at + whole_lines(panels.size(K)));
}

FASTRNN_FN const float* scales_from(const float* scales, Index at) {
  return scales ? scales + at : nullptr;
}

// Rounded to the nearest, ties to even; NaN stays NaN.
FASTRNN_FN Half to_bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return static_cast<Half>(bits >> 16 | 0x40);
  return static_cast<Half>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// One column of K weights, `stride` apart. A scale of NaN tells of weights that are not finite.
FASTRNN_FN float to_int8(const float* w, Index K, Index stride, std::int8_t* out) {
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

// Panels in a narrow type, from those in floats.
template <class V>
FASTRNN_NOINLINE void narrow_panels(const Panels<V>& panels, Index K, WeightType type,
                                    const float* packed, char* out) {
  if (type == WeightType::bfloat16) {
    Half* to = reinterpret_cast<Half*>(out);
    for (Index i = 0; i < panels.size(K); ++i) to[i] = to_bfloat16(packed[i]);
    return;
  }
  std::int8_t* to = reinterpret_cast<std::int8_t*>(out);
  float* scales = scales_of(panels, K, out);
  for (Index p = 0; p < panels.count(); ++p) {
    const Index width = (p + 1 < panels.count() ? panels.U * panels.G : panels.last()) * V::kLanes;
    for (Index i = 0; i < width; ++i) *scales++ = to_int8(packed + i, K, width, to + i);
    packed += K * width, to += K * width;
  }
}

// A panel of n_vectors in floats.
template <class V, class W>
FASTRNN_NOINLINE void widen_panel(const W* b, const float* scales, Index K, int n_vectors,
                                  float* out) {
  for (int n = 0; n < n_vectors; ++n) {
    const V scale = scales ? V::load(scales + n * V::kLanes) : V::broadcast(0);
    for (Index k = 0; k < K; ++k) {
      const Index at = (k * n_vectors + n) * V::kLanes;
      widen<V>(b + at, scale).store(out + at);
    }
  }
}

// From so many rows on, a panel is widened once for all of them.
constexpr Index kWidenRows = 8;

// Fewer rows of a full panel: four at a time, two, one.
template <class V, int R, int N, class W, class Stage>
FASTRNN_FN void narrow_rows(const Stage& stage, Index m, Index m_end, Index p, const W* b,
                            const float* scales, Index K) {
  for (; m + R <= m_end; m += R) tile_of<V, R, 1, N>(stage, m, p, b, scales, K);
  if constexpr (R > 1) {
    if (m < m_end) narrow_rows<V, R / 2, N>(stage, m, m_end, p, b, scales, K);
  }
}

// run_panels (tile.h) over narrow panels. wide: memory for one panel in floats
template <class V, class W, class Stage>
FASTRNN_NOINLINE void run_narrow(const Stage& stage, const Block& block, Index panels,
                                 int last_vectors, const W* b, const float* scales, Index K,
                                 bool down, float* wide) {
  constexpr int N = Stage::kVectors;
  const Index width = N * V::kLanes, rows = block.m1 - block.m0;
  for (Index i = block.p0; i < block.p1; ++i) {
    const Index p = down ? block.p1 - 1 - (i - block.p0) : i, low = down ? p - 1 : p;
    const int n_vectors = p + 1 < panels ? N : last_vectors;
    if (rows == 1 && i + 1 < block.p1 && (low + 2 < panels || last_vectors == N)) {
      tile_of<V, 1, 2, N>(stage, block.m0, low, b + low * width * K,
                          scales_from(scales, low * width), K);
      ++i;
    } else if (rows < kWidenRows && n_vectors == N) {
      narrow_rows<V, 4, N>(stage, block.m0, block.m1, p, b + p * width * K,
                           scales_from(scales, p * width), K);
    } else {
      widen_panel<V>(b + p * width * K, scales_from(scales, p * width), K, n_vectors, wide);
      run_panel<V>(stage, block, p, n_vectors, wide, K);
    }
  }
}
