// Weights and activations packed for the tile: [panel][k][vector][lane].
//
// A panel holds U vectors of hidden units ("units") with G gates each, vector u*G + g; so one tile ends
// with all gates of its units. G = 1 for plain products. The last panel holds no more vectors than its
// units need.

// What is packed of weights of so many bytes leaves the caches again before it is read: it goes past
// them, to memory, which spares reading what was there. Forward's panels are read at once, backward's
// after forward.
constexpr Index kPastCaches = 16 << 20, kPastCachesBackward = 4 << 20;

template <class V>
FASTRNN_FN void put(V a, bool past_caches, typename V::Real* out) {
  past_caches ? a.stream(out) : a.store(out);
}

// How N units with G gates lie in panels.
template <class V>
struct Panels {
  Index N;  // units
  int G;    // gates a unit
  int U;    // vectors of units a full panel

  // as many vectors of units as make a tile of about four vectors
  static constexpr int units(int gates) { return gates >= 3 ? 1 : gates == 2 ? 2 : 4; }

  FASTRNN_FN Panels(Index n, int gates) : N(n), G(gates), U(units(gates)) {}

  FASTRNN_FN Index vectors() const { return (N + V::kLanes - 1) / V::kLanes; }  // of units
  FASTRNN_FN Index count() const { return (vectors() + U - 1) / U; }
  FASTRNN_FN int last() const {  // vectors (units x gates) in the last panel
    const Index rest = vectors() % U;
    return static_cast<int>(rest ? rest : U) * G;
  }
  FASTRNN_FN int vectors_in(Index p) const { return p + 1 < count() ? U * G : last(); }
  FASTRNN_FN Index size(Index K) const { return vectors() * G * V::kLanes * K; }

  // Packs rank's share of forward weights, one row an output:
  // B[k][gate, unit] = w[(first_gate + gate) * N + unit][k].
  FASTRNN_NOINLINE void pack(const typename V::Real* w, int first_gate, Index K, int rank,
                             int ranks, bool past_caches, typename V::Real* out) const {
    const Share share(count(), rank, ranks);
    for (Index p = share.begin; p < share.end; ++p)
      pack_panel(w, first_gate, K, p, past_caches, out + p * K * U * G * V::kLanes);
  }

  // Packs panel p alone, to where `out` says.
  FASTRNN_NOINLINE void pack_panel(const typename V::Real* w, int first_gate, Index K, Index p,
                                   bool past_caches, typename V::Real* out) const {
    const int in_panel = vectors_in(p);
    const Index stride = in_panel * V::kLanes;
    for (int v = 0; v < in_panel; ++v) {
      const Index unit = (p * U + v / G) * V::kLanes;
      const typename V::Real* rows = w + ((first_gate + v % G) * N + unit) * K;
      // a square at a time: few cache lines on both sides
      for (Index k = 0; k < K; k += kSquare)
        transpose(rows + k, K, smaller(V::kLanes, N - unit), smaller(kSquare, K - k), past_caches,
                  out + k * stride + v * V::kLanes, stride);
    }
  }

 private:
  static constexpr Index kSquare = V::kTransposes ? V::kLanes : 16;

  // out[k * stride + lane] = rows[lane * ld + k]; lanes past the last unit are zero
  FASTRNN_FN static void transpose(const typename V::Real* rows, Index ld, Index lanes, Index K,
                                   bool past_caches, typename V::Real* out, Index stride) {
    if constexpr (V::kTransposes) {
      if (K == V::kLanes) {
        V a[V::kLanes];
        FASTRNN_UNROLL
        for (Index lane = 0; lane < V::kLanes; ++lane)
          a[lane] = lane < lanes ? V::load(rows + lane * ld) : V::broadcast(0);
        V::transpose(a);
        FASTRNN_UNROLL
        for (Index k = 0; k < V::kLanes; ++k) put(a[k], past_caches, out + k * stride);
        return;
      }
    }
    for (Index lane = 0; lane < V::kLanes; ++lane)
      for (Index k = 0; k < K; ++k) out[k * stride + lane] = lane < lanes ? rows[lane * ld + k] : 0;
  }
};

// Packs a share of the panels of B[k][n] = row(k)[n], k < K, n < N: rows as they lie, vector by vector.
template <class V, class RowOf>
FASTRNN_FN void pack_rows(Index K, Index N, bool past_caches, typename V::Real* out,
                          const Share& share, const RowOf& row) {
  const Panels<V> panels(N, 1);
  for (Index p = share.begin; p < share.end; ++p) {
    const int vectors = p + 1 < panels.count() ? panels.U : panels.last();
    typename V::Real* to = out + p * K * panels.U * V::kLanes;
    const Index first = p * panels.U * V::kLanes;
    for (Index k = 0; k < K; ++k) {
      const typename V::Real* from = row(k) + first;
      for (int v = 0; v < vectors; ++v, to += V::kLanes)
        put(V::load(from + v * V::kLanes, N - first - v * V::kLanes), past_caches, to);
    }
  }
}
