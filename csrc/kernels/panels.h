// Packs weights and activations for the tile: Panels (table.h) says how they lie.

template <class V>
FASTRNN_FN void put(V a, bool non_temporal, typename V::Real* out) {
  non_temporal ? a.stream(out) : a.store(out);
}

// out[k * stride + lane] = rows[lane * ld + k]; lanes past the last unit are zero
template <class V>
FASTRNN_FN void transpose(const typename V::Real* rows, Index ld, Index lanes, Index K,
                          bool non_temporal, typename V::Real* out, Index stride) {
  if constexpr (V::kTransposes) {
    if (K == V::kLanes) {
      V a[V::kLanes];
      FASTRNN_UNROLL
      for (Index lane = 0; lane < V::kLanes; ++lane)
        a[lane] = lane < lanes ? V::load(rows + lane * ld) : V::broadcast(0);
      V::transpose(a);
      FASTRNN_UNROLL
      for (Index k = 0; k < V::kLanes; ++k) put(a[k], non_temporal, out + k * stride);
      return;
    }
  }
  for (Index lane = 0; lane < V::kLanes; ++lane)
    for (Index k = 0; k < K; ++k) out[k * stride + lane] = lane < lanes ? rows[lane * ld + k] : 0;
}

// Packs panel p of forward weights, one row an output, to `out`:
// B[k][gate, unit] = w[(first_gate + gate) * N + unit][k].
template <class V>
void pack_panel(const Panels& panels, const typename V::Real* w, int first_gate, Index K, Index p,
                bool non_temporal, typename V::Real* out) {
  constexpr Index square = V::kTransposes ? V::kLanes : 16;  // few cache lines on both sides
  const int in_panel = panels.vectors_in(p), G = panels.gates;
  const Index stride = in_panel * V::kLanes, N = panels.N;
  for (int v = 0; v < in_panel; ++v) {
    const Index unit = panels.unit(p) + v / G * V::kLanes;
    const typename V::Real* rows = w + ((first_gate + v % G) * N + unit) * K;
    for (Index k = 0; k < K; k += square)
      transpose<V>(rows + k, K, smaller(V::kLanes, N - unit), smaller(square, K - k), non_temporal,
                   out + k * stride + v * V::kLanes, stride);
  }
}

// Packs rows k0 .. k0+count-1 of B, as they lie, for a share of plain panels.
template <class V>
void pack_rows(const Panels& panels, const RowsAt<const typename V::Real>& rows, Index k0,
               Index count, Index K, const Share& share, bool non_temporal, typename V::Real* out) {
  for (Index p = share.begin; p < share.end; ++p) {
    const int vectors = panels.vectors_in(p);
    typename V::Real* to = out + panels.at(p, K) + k0 * vectors * V::kLanes;
    const Index first = panels.unit(p);
    for (Index k = 0; k < count; ++k) {
      const typename V::Real* from = rows[k] + first;
      for (int v = 0; v < vectors; ++v, to += V::kLanes)
        put(V::load(from + v * V::kLanes, panels.N - first - v * V::kLanes), non_temporal, to);
    }
  }
}

// A panel of n vectors of bfloat16 or int8, in floats.
template <class V, class W>
void widen_panel(const void* b, const float* scales, Index K, int n, float* out) {
  const W* from = static_cast<const W*>(b);
  for (int v = 0; v < n; ++v) {
    const V scale = scales ? V::load(scales + v * V::kLanes) : V::broadcast(0);
    for (Index k = 0; k < K; ++k) {
      const Index at = (k * n + v) * V::kLanes;
      widen<V>(from + at, scale).store(out + at);
    }
  }
}

// Sums of columns; see ColumnSums.
template <class V>
void column_sums(const ColumnSums<typename V::Real>& of, Index begin, Index end) {
  for (Index i = begin; i < end; i += V::kLanes) {
    const Index left = end - i;
    V sum = of.from ? V::load(of.from + i, left) : V::broadcast(0);
    for (Index k = 0; k < of.K; ++k) {
      const V d = V::load(of.a + k * of.lda + i, left);
      sum = of.factor ? fma(d, V::load(of.factor[k] + i, left), sum) : sum + d;
    }
    (of.add ? V::load(of.out + i, left) + sum : sum).store(of.out + i, left);
  }
}

template <class V>
void settle(const SettledSums<typename V::Real>& of, Index begin, Index end) {
  for (Index i = begin; i < end; i += V::kLanes) {
    const Index n = end - i;
    const V a = V::load(of.sums + i, n);
    if (of.first) {
      a.store(of.high + i, n);
      V::broadcast(0).store(of.low + i, n);
      continue;
    }
    const V b = V::load(of.high + i, n), sum = a + b, of_a = sum - b;
    const V rest = V::load(of.low + i, n) + ((a - of_a) + (b - (sum - of_a)));
    if (of.last) {
      // beside what is not finite, nothing is left
      const V finite = V::broadcast(1) + (sum - sum);
      (sum + where_positive(finite, rest)).store(of.sums + i, n);
    } else {
      sum.store(of.high + i, n);
      rest.store(of.low + i, n);
    }
  }
}

// To and from sums, whose vectors are full.
template <class V>
void load_partial(const Partial<const typename V::Real>& of, typename V::Real* sums) {
  for (Index m = of.m; m < of.m + of.rows; ++m)
    for (Index i = of.unit; i < of.N; i += V::kLanes, sums += V::kLanes)
      V::load(of.at[m] + i, of.N - i).store(sums);
}
template <class V>
void store_partial(const Partial<typename V::Real>& of, const typename V::Real* sums, bool add) {
  for (Index m = of.m; m < of.m + of.rows; ++m) {
    for (Index i = of.unit; i < of.N; i += V::kLanes, sums += V::kLanes) {
      typename V::Real* out = of.at[m] + i;
      const V sum = V::load(sums);
      (add ? V::load(out, of.N - i) + sum : sum).store(out, of.N - i);
    }
  }
}
