// Dot products of bfloat16: factors rounded once, sums in float32.

#ifdef FASTRNN_DOTS

// Rounds a share of packed panels.
template <class V>
void pair_panels(const Panels& panels, const float* packed, Index K, const Share& share,
                 Half* out) {
  Pair* to = reinterpret_cast<Pair*>(out) + panels.at(share.begin, pairs_of(K));
  const float* from = packed + panels.at(share.begin, K);
  for (Index p = share.begin; p < share.end; ++p) {
    const Index width = panels.vectors_in(p) * V::kLanes;
    for (Index k = 0; k < K; k += 2, from += 2 * width) {
      for (Index i = 0; i < width; i += V::kLanes, to += V::kLanes) {
        const V odd = k + 1 < K ? V::load(from + width + i) : V::broadcast(0);
        Pairs::zip(V::load(from + i), odd).store(to);
      }
    }
    if (K % 2) from -= width;
  }
}

// Rounds rows m0 .. end-1 of A: whole_vectors(pairs_of(K)) pairs a row, or, of columns, rows of pairs
// dot_stride(end - m0) apart.
template <class V>
void pair_rows(const Matmul<float>& of, Index m0, Index end, Half* out) {
  Pair* to = reinterpret_cast<Pair*>(out);
  const Index K = of.K;
  if (of.columns) {
    const Index stride = dot_stride(end - m0);
    const float* a = of.columns + m0;
    for (Index k = 0; k < K; k += 2, a += 2 * of.ld, to += stride) {
      for (Index m = 0; m < end - m0; m += V::kLanes) {
        const Index left = end - m0 - m;
        const V odd = k + 1 < K ? V::load(a + of.ld + m, left) : V::broadcast(0);
        Pairs::zip(V::load(a + m, left), odd).store(to + m);
      }
    }
    return;
  }
  for (Index m = m0; m < end; ++m) {
    const float* a = of.rows[m];
    for (Index k = 0; k < K; k += 2 * V::kLanes, to += V::kLanes) {
      const Index left = K - k;
      const V high =
          left > V::kLanes ? V::load(a + k + V::kLanes, left - V::kLanes) : V::broadcast(0);
      Pairs::of(V::load(a + k, left), high).store(to);
    }
  }
}

#endif
