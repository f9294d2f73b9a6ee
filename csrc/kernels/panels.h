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
  const int in_panel = panels.vectors_in(p), G = panels.gates, together = panels.together(in_panel);
  const Index stride = together * V::kLanes, N = panels.N;
  for (int v = 0; v < in_panel; ++v) {
    typename V::Real* to = out + (v / together * K * together + v % together) * V::kLanes;
    const Index unit = panels.unit(p) + v / G * V::kLanes;
    const typename V::Real* rows = w + ((first_gate + v % G) * N + unit) * K;
    for (Index k = 0; k < K; k += square)
      transpose<V>(rows + k, K, smaller(V::kLanes, N - unit), smaller(square, K - k), non_temporal,
                   to + k * stride, stride);
  }
}

// n vectors of some rows, `left` of the last one's lanes, one row behind the other.
template <class V, int n>
FASTRNN_FN void pack_vectors(const RowsAt<const typename V::Real>& rows, Index count, Index first,
                             Index left, bool non_temporal, typename V::Real* out) {
  for (Index k = 0; k < count; ++k, out += n * V::kLanes) {
    const typename V::Real* from = rows[k] + first;
    FASTRNN_UNROLL
    for (int v = 0; v < n; ++v)
      put(V::load(from + v * V::kLanes, left - v * V::kLanes), non_temporal, out + v * V::kLanes);
  }
}

// Packs rows k0 .. k0+count-1 of B, as they lie, for a share of plain panels.
template <class V>
void pack_rows(const Panels& panels, const RowsAt<const typename V::Real>& rows, Index k0,
               Index count, Index K, const Share& share, bool non_temporal, typename V::Real* out) {
  for (Index p = share.begin; p < share.end; ++p) {
    const int vectors = panels.vectors_in(p), together = panels.together(vectors);
    for (int done = 0; done < vectors; done += together) {
      typename V::Real* to = out + panels.at(p, K) + (done * K + k0 * together) * V::kLanes;
      const Index first = panels.unit(p) + done * V::kLanes, left = panels.N - first;
      const auto pack = [&](auto n) {
        if (left >= n * V::kLanes)
          pack_vectors<V, n>(rows, count, first, n * V::kLanes, non_temporal, to);
        else
          pack_vectors<V, n>(rows, count, first, left, non_temporal, to);
      };
      if (together == 4) pack(std::integral_constant<int, 4>{});
      if (together == 3) pack(std::integral_constant<int, 3>{});
      if (together == 2) pack(std::integral_constant<int, 2>{});
      if (together == 1) pack(std::integral_constant<int, 1>{});
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

// Sums of n vectors of columns from column i on, `left` of the last vector's lanes.
template <class V, int n>
FASTRNN_FN void column_sums_at(const ColumnSums<typename V::Real>& of, Index i, Index left) {
  V sum[n];
  FASTRNN_UNROLL
  for (int j = 0; j < n; ++j)
    sum[j] = of.from ? V::load(of.from + i + j * V::kLanes, left) : V::broadcast(0);
  const typename V::Real* a = of.a + i;
  for (Index k = 0; k < of.K; ++k, a += of.lda) {
    const typename V::Real* factor = of.factor ? of.factor[k] + i : nullptr;
    FASTRNN_UNROLL
    for (int j = 0; j < n; ++j) {
      const V d = V::load(a + j * V::kLanes, left);
      sum[j] = factor ? fma(d, V::load(factor + j * V::kLanes, left), sum[j]) : sum[j] + d;
    }
  }
  FASTRNN_UNROLL
  for (int j = 0; j < n; ++j) {
    typename V::Real* out = of.out + i + j * V::kLanes;
    (of.add ? V::load(out, left) + sum[j] : sum[j]).store(out, left);
  }
}

// Sums of columns; see ColumnSums. A sum waits for itself: four vectors of them at a time.
template <class V>
void column_sums(const ColumnSums<typename V::Real>& of, Index begin, Index end) {
  constexpr Index at_once = 4 * V::kLanes;
  Index i = begin;
  for (; i + at_once <= end; i += at_once) column_sums_at<V, 4>(of, i, V::kLanes);
  for (; i < end; i += V::kLanes) column_sums_at<V, 1>(of, i, end - i);
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
