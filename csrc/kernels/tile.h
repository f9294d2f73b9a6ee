// The register tile: R rows x N vectors of accumulators, one chain of fused multiply-adds an output.
//
// Every product of the engine goes through here. One chain an output, k rising from 0, whatever the
// tile, is what makes results independent of the batch size, the number of threads, the chunking and
// the vector width. A tile knows no cell: it begins and ends in memory (TileCall).
//
// V: vectors of the sums. F: vectors of the factors; V, or pairs of bfloat16. W: what the panel holds;
// numbers of F, or bfloat16 and int8, which are widened in registers.

constexpr Index kLineBytes = 64;  // of the caches

// A vector of weights as it lies in memory; of int8, times the scales of its rows.
template <class F, class W, class V>
FASTRNN_FN F widen(const W* w, V scale) {
  if constexpr (std::is_same_v<W, std::int8_t>)
    return F::load(w) * scale;
  else
    return F::load(w);
}

// P > 1: a few rows take several panels, or half panels (kHalfPanels), for P R N chains: a fused
// multiply-add takes four cycles and two start in each.
template <class V, class F, class W, int R, int P, int N, bool kColumns, bool kHalfPanels = false>
struct Tile {
  using Real = typename V::Real;
  using Factor = typename F::Real;
  static constexpr Index kWidth = N * V::kLanes;
  static constexpr bool kFetches = !kColumns && P == 1 && R == V::tile_rows(N);

  FASTRNN_NOINLINE static void run(const TileCall<Real>& t) {
    V acc[P][R][N];
    set_up(t, acc);
    if constexpr (kFetches) {
      if (t.fetch)
        multiply<true>(t, acc);
      else
        multiply<false>(t, acc);
    } else {
      multiply<false>(t, acc);
    }
    store(t, acc);
  }

 private:
  // Of the i-th panel, or half of one: which vector of a panel comes first, and which panel it is.
  FASTRNN_FN static int first(const TileCall<Real>& t, int i) {
    return P > 1 ? (kHalfPanels ? i % 2 * N : 0) : t.first;
  }
  FASTRNN_FN static Index panel(int i) { return kHalfPanels ? i / 2 : i; }

  FASTRNN_FN static Real* output(const TileCall<Real>& t, int r) {
    return t.out[t.out_m + r] + t.out_unit;
  }

  FASTRNN_FN static void set_up(const TileCall<Real>& t, V (&acc)[P][R][N]) {
    if constexpr (kColumns) {  // the rows that the next tile has in these ones' place
      const Index ahead = V::tile_rows(N) * t.out.stride * static_cast<Index>(sizeof(Real));
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) {
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n) prefetch<true>(output(t, r) + t.at[n], ahead);
      }
    }
    if (t.init == Init::given) {
      FASTRNN_UNROLL
      for (int i = 0; i < P; ++i) {
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n) {
          const int v = first(t, i) + n;
          const Index stride = t.from_stride[v];
          const Real* from = t.from[v] + t.m * stride + t.unit + panel(i) * t.pair_unit;
          FASTRNN_UNROLL
          for (int r = 0; r < R; ++r) acc[i][r][n] = V::load(from + r * stride);
        }
      }
    } else if (t.init == Init::output) {
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) {
        const Real* out = output(t, r);
        FASTRNN_UNROLL
        for (int i = 0; i < P; ++i) {
          FASTRNN_UNROLL
          for (int n = 0; n < N; ++n)
            acc[i][r][n] = V::load(out + t.at[first(t, i) + n] + panel(i) * t.pair_out);
        }
      }
    } else {
      FASTRNN_UNROLL
      for (int i = 0; i < P; ++i) {
        FASTRNN_UNROLL
        for (int r = 0; r < R; ++r) {
          FASTRNN_UNROLL
          for (int n = 0; n < N; ++n) acc[i][r][n] = V::broadcast(0);
        }
      }
    }
  }

  // Where things go is read before the first store, which may be to anywhere for all that a compiler
  // knows.
  FASTRNN_FN static void store(const TileCall<Real>& t, const V (&acc)[P][R][N]) {
    Real* rows[R];
    if (t.out.list) {
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) rows[r] = t.out.list[t.out_m + r] + t.out_unit;
    } else {
      Real* first = t.out.first + t.out_m * t.out.stride + t.out_unit;
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) rows[r] = first + r * t.out.stride;
    }
    Index at[P][N];
    FASTRNN_UNROLL
    for (int i = 0; i < P; ++i) {
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) at[i][n] = t.at[first(t, i) + n] + panel(i) * t.pair_out;
    }
    const bool add = kColumns && t.add;
    FASTRNN_UNROLL
    for (int r = 0; r < R; ++r) {
      FASTRNN_UNROLL
      for (int i = 0; i < P; ++i) {
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n) {
          Real* to = rows[r] + at[i][n];
          (add ? V::load(to) + acc[i][r][n] : acc[i][r][n]).store(to);
        }
      }
    }
  }

  template <bool kFetch>
  FASTRNN_FN static void multiply(const TileCall<Real>& t, V (&acc)[P][R][N]) {
    const W* b = static_cast<const W*>(t.b);
    const Index K = t.K;
    V scale[P][N];
    if constexpr (std::is_same_v<W, std::int8_t>) {
      FASTRNN_UNROLL
      for (int i = 0; i < P; ++i) {
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n)
          scale[i][n] = V::load(t.scales + ((P > 1 ? 0 : t.first) + i * N + n) * V::kLanes);
      }
    }
    if constexpr (kColumns) {
      const Factor* a = static_cast<const Factor*>(t.a) + t.m;
      const Index stride = t.stride;
      for (Index k = 0; k < K; ++k, a += stride, b += kWidth) add_row(a, 1, b, acc);
    } else {
      const Factor* a[R];
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) a[r] = row(t, r);
      const void* fetch = t.fetch;
      const Index pair = t.pair_b;
      for (Index k = 0; k < K; ++k, b += kWidth) {
        if constexpr (kFetch) prefetch<false>(fetch, k * kLineBytes);
        FASTRNN_UNROLL
        for (int i = 0; i < P; ++i) {
          F w[N];
          FASTRNN_UNROLL
          for (int n = 0; n < N; ++n) w[n] = widen<F>(b + i * pair + n * V::kLanes, scale[i][n]);
          FASTRNN_UNROLL
          for (int r = 0; r < R; ++r) {
            const F x = F::broadcast(a[r][k]);
            FASTRNN_UNROLL
            for (int n = 0; n < N; ++n) acc[i][r][n] = fma(x, w[n], acc[i][r][n]);
          }
        }
      }
    }
  }

  // One k of a tile whose rows of A are columns.
  FASTRNN_FN static void add_row(const Factor* a, Index, const W* b, V (&acc)[P][R][N]) {
    F w[N];
    FASTRNN_UNROLL
    for (int n = 0; n < N; ++n) w[n] = F::load(b + n * V::kLanes);
    FASTRNN_UNROLL
    for (int r = 0; r < R; ++r) {
      const F x = F::broadcast(a[r]);
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) acc[0][r][n] = fma(x, w[n], acc[0][r][n]);
    }
  }

  FASTRNN_FN static const Factor* row(const TileCall<Real>& t, int r) {
    if constexpr (std::is_same_v<Factor, Real>) {
      if (t.rows) return t.rows[t.m + r] + t.first_k;
    }
    return static_cast<const Factor*>(t.a) + (t.m + r) * t.stride + t.first_k;
  }
};

// Tiles of R rows, and of fewer for what is left.
template <class V, class F, class W, int R, int N, bool kColumns, bool kHalfPanels>
constexpr void add_tiles(TileKernels<typename V::Real>& to) {
  if constexpr (kHalfPanels)
    to.tile[N][R] = Tile<V, F, W, R, 2, N / 2, false, true>::run;
  else
    to.tile[N][R] = Tile<V, F, W, R, 1, N, kColumns>::run;
  if constexpr (R > 1) add_tiles<V, F, W, (R > 6 ? 4 : R - 1), N, kColumns, kHalfPanels>(to);
}

// All tiles of a kind of factors. kMost: rows at most
template <class V, class F, class W, bool kColumns, int N = kMaxTileVectors,
          int kMost = kMaxTileRows>
constexpr void add_kernels(TileKernels<typename V::Real>& to) {
  constexpr int rows = V::tile_rows(N) < kMost ? V::tile_rows(N) : kMost;
  constexpr bool half_panels = V::kHalfPanels && !kColumns && N == 4;
  to.most_rows[N] = rows;
  add_tiles<V, F, W, rows, N, kColumns, half_panels>(to);
  // full panels have four vectors, or the three of three gates
  if constexpr (half_panels)
    to.pair[N] = Tile<V, F, W, 1, 4, N / 2, false, true>::run;
  else if constexpr (!kColumns && N > 2)
    to.pair[N] = Tile<V, F, W, 1, 2, N, false>::run;
  if constexpr (N > 1) add_kernels<V, F, W, kColumns, N - 1, kMost>(to);
}

template <class V, class F, class W, bool kColumns, int kMost = kMaxTileRows>
constexpr TileKernels<typename V::Real> tile_kernels() {
  TileKernels<typename V::Real> kernels{static_cast<int>(sizeof(W)), {}, {}, {}};
  add_kernels<V, F, W, kColumns, kMaxTileVectors, kMost>(kernels);
  return kernels;
}
