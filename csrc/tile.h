// The register tile: R rows x N vectors of accumulators, one chain of fused multiply-adds an output.
//
// Every product of the engine goes through here. An output is seeded, then takes in a(k) * b(k) for k
// rising from 0, then is finished, all in registers. What seeds and what finishes it is a *stage*
// (stages.h). One chain an output, whatever the tile, is what makes results independent of the batch
// size, the number of threads, the chunking and the vector width.
//
// B comes as panels (panels.h): [panel][k][vector][lane].

constexpr Index kLineBytes = 64;  // of the caches

// What a stage offers:
//   Factor                    vectors of what a and b hold; V, or pairs of bfloat16 (dots.h)
//   kColumns                  false: row(m)[k] is a(k) of row m; true: base()[k * ld() + m] is
//   seed(m, p, acc)           fills the accumulators of row m in panel p; acc is V[N]
//   finish(m, p, acc)         takes them
//   kPieces, after(k)         run_panels
template <class Stage>
using FactorOf = typename Stage::Factor::Real;

// next: null, or what is read later, of which a cache line is fetched with each k.
template <class V, int R, int N, class Stage>
FASTRNN_FN void tile(const Stage& stage, Index m, Index p, const FactorOf<Stage>* b, Index K,
                     const FactorOf<Stage>* next) {
  using F = typename Stage::Factor;
  V acc[R][N];
  FASTRNN_UNROLL
  for (int r = 0; r < R; ++r) stage.seed(m + r, p, acc[r]);
  if constexpr (Stage::kColumns) {
    const FactorOf<Stage>* a = stage.base() + m;
    const Index ld = stage.ld();
    for (Index k = 0; k < K; ++k, a += ld, b += N * V::kLanes) {
      F w[N];
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) w[n] = F::load(b + n * V::kLanes);
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) {
        const F x = F::broadcast(a[r]);
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n) acc[r][n] = fma(x, w[n], acc[r][n]);
      }
    }
  } else {
    const FactorOf<Stage>* a[R];
    FASTRNN_UNROLL
    for (int r = 0; r < R; ++r) a[r] = stage.row(m + r);
    for (Index k = 0; k < K; ++k, b += N * V::kLanes) {
      F w[N];
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) w[n] = F::load(b + n * V::kLanes);
      if (next) prefetch<false>(next, k * kLineBytes);
      FASTRNN_UNROLL
      for (int r = 0; r < R; ++r) {
        const F x = F::broadcast(a[r][k]);
        FASTRNN_UNROLL
        for (int n = 0; n < N; ++n) acc[r][n] = fma(x, w[n], acc[r][n]);
      }
    }
  }
  FASTRNN_UNROLL
  for (int r = 0; r < R; ++r) stage.finish(m + r, p, acc[r]);
}

template <class V>
constexpr const typename V::Real* kNoScales = nullptr;

// A vector of weights as it lies in memory; of int8, times the scales of its rows.
template <class F, class W, class V>
FASTRNN_FN F widen(const W* w, V scale) {
  if constexpr (std::is_same_v<W, std::int8_t>)
    return F::load(w) * scale;
  else
    return F::load(w);
}

// R rows against P neighbouring panels of weights of type W, which are widened in registers; for P = 2
// both are full. One row takes two panels, for 2 N chains: a fused multiply-add takes four cycles
// and two start in each.
template <class V, int R, int P, int N, class W, class Stage>
FASTRNN_FN void tile_of(const Stage& stage, Index m, Index p, const W* b,
                        const typename V::Real* scales, Index K) {
  using F = typename Stage::Factor;
  const Index stride = K * N * V::kLanes;
  V acc[P][R][N], scale[P][N];
  const FactorOf<Stage>* a[R];
  FASTRNN_UNROLL
  for (int r = 0; r < R; ++r) a[r] = stage.row(m + r);
  FASTRNN_UNROLL
  for (int i = 0; i < P; ++i) {
    FASTRNN_UNROLL
    for (int r = 0; r < R; ++r) stage.seed(m + r, p + i, acc[i][r]);
    FASTRNN_UNROLL
    for (int n = 0; n < N; ++n)
      scale[i][n] = scales ? V::load(scales + (i * N + n) * V::kLanes) : V::broadcast(0);
  }
  for (Index k = 0; k < K; ++k, b += N * V::kLanes) {
    FASTRNN_UNROLL
    for (int i = 0; i < P; ++i) {
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        const F w = widen<F>(b + i * stride + n * V::kLanes, scale[i][n]);
        FASTRNN_UNROLL
        for (int r = 0; r < R; ++r) acc[i][r][n] = fma(F::broadcast(a[r][k]), w, acc[i][r][n]);
      }
    }
  }
  FASTRNN_UNROLL
  for (int i = 0; i < P; ++i) {
    FASTRNN_UNROLL
    for (int r = 0; r < R; ++r) stage.finish(m + r, p + i, acc[i][r]);
  }
}

// Rows [m, m_end) of panel p: tiles of R rows, the rest in smaller ones. None is left to run alone,
// since one row has too few chains to keep the multipliers busy: 7 rows of tiles of 6 are 4 + 3.
// The first tiles fetch the next panel, if there is one, into the L2 cache.
template <class V, int R, int N, class Stage>
FASTRNN_FN void tile_rows(const Stage& stage, Index m, Index m_end, Index p,
                          const FactorOf<Stage>* b, Index K,
                          const FactorOf<Stage>* next = nullptr) {
  constexpr Index width = N * V::kLanes, line = kLineBytes / sizeof(*b);
  for (Index i = 0; m + R <= m_end && (R == 1 || m + R + 1 != m_end); m += R, ++i)
    tile<V, R, N>(stage, m, p, b, K, next && i * line < width ? next + i * line * K : nullptr);
  if constexpr (R > 1) {
    if (m < m_end) tile_rows<V, (R > 4 ? 4 : R - 1), N>(stage, m, m_end, p, b, K);
  }
}

// A stage, and the panels of which it takes a share: packed, and in parts of bfloat16 if there are any.
template <class V, class Stage>
struct Operand {
  Stage stage;
  Panels<V> panels;
  Share share;
  const typename V::Real* packed;
  const std::uint16_t* parts;
};

// A part of the rows and of the panels.
struct Block {
  Index m0, m1, p0, p1;
};

// work.run<n>() for the n that a panel's number of vectors is: N, or less by multiples of kStep.
template <int N, int kStep, class Work>
FASTRNN_FN void with_vectors(int vectors, const Work& work) {
  if constexpr (N <= kStep) {
    work.template run<N>();
  } else {
    if (vectors == N)
      work.template run<N>();
    else
      with_vectors<N - kStep, kStep>(vectors, work);
  }
}

template <class V, class Stage>
struct PanelWork {
  const Stage& stage;
  const Block& block;
  Index p;
  const FactorOf<Stage>* panel;
  Index K;
  const FactorOf<Stage>* next;

  template <int N>
  FASTRNN_FN void run() const {
    tile_rows<V, V::tile_rows(N), N>(stage, block.m0, block.m1, p, panel, K, next);
  }
};

// Runs a stage over a block's rows and panel p, which has n_vectors.
template <class V, class Stage>
FASTRNN_NOINLINE void run_panel(const Stage& stage, const Block& block, Index p, int n_vectors,
                                const FactorOf<Stage>* panel, Index K,
                                const FactorOf<Stage>* next = nullptr) {
  with_vectors<Stage::kVectors, Stage::kStep>(n_vectors,
                                              PanelWork<V, Stage>{stage, block, p, panel, K, next});
}

// A long panel is gone through in pieces, which stay in the L2 cache from tile to tile, if the stage
// can take up its sums again: `after(k)` is the stage for what follows the first k.
constexpr Index kPieceBytes = 256 * 1024;

// Weights of more bytes than these wait beyond the L2 cache; where a panel meets rows enough, the next one
// is fetched meanwhile.
constexpr Index kFetchBytes = 1 << 20, kFetchRows = 12;

// Runs a stage over a block. Full panels hold N vectors; the last one of the product may hold fewer
// (multiples of Stage::kStep). `down`: panels from last to first, for the zigzag over weights that exceed
// the L2 cache, where what was used last is still there.
template <class V, class Stage>
FASTRNN_NOINLINE void run_panels(const Stage& stage, const Block& block, Index panels,
                                 int last_vectors, const FactorOf<Stage>* b, Index K, bool down) {
  constexpr int N = Stage::kVectors;
  const Index stride = K * N * V::kLanes;
  constexpr Index piece = kPieceBytes / (N * V::kLanes * static_cast<Index>(sizeof(*b)));
  constexpr Index size = sizeof(*b);
  const Index rows = block.m1 - block.m0;
  const bool fetches =
      !Stage::kColumns && rows >= kFetchRows && (block.p1 - block.p0) * stride * size > kFetchBytes;
  for (Index i = block.p0; i < block.p1; ++i) {
    const Index p = down ? block.p1 - 1 - (i - block.p0) : i;
    if constexpr (!Stage::kColumns) {
      // the neighbour in walking order is full as well, unless it is the short last one
      const Index low = down ? p - 1 : p;
      if (rows == 1 && i + 1 < block.p1 && (low + 2 < panels || last_vectors == N)) {
        tile_of<V, 1, 2, N>(stage, block.m0, low, b + low * stride, kNoScales<V>, K);
        ++i;
        continue;
      }
    }
    const int n_vectors = p + 1 < panels ? N : last_vectors;
    const FactorOf<Stage>* panel = b + p * stride;
    const FactorOf<Stage>* next = nullptr;
    if (fetches && i + 1 < block.p1) {
      if (down)
        next = panel - stride;
      else if (p + 2 < panels || last_vectors == N)
        next = panel + stride;
    }
    if constexpr (Stage::kPieces) {
      for (Index k = 0; k == 0 || k < K; k += piece)
        run_panel<V>(stage.after(k), block, p, n_vectors, panel + k * n_vectors * V::kLanes,
                     smaller(piece, K - k), next ? next + k * N * V::kLanes : nullptr);
    } else {
      run_panel<V>(stage, block, p, n_vectors, panel, K, next);
    }
  }
}

// Into how many blocks of rows weight gradients are cut: each block's columns stay in the L2 cache while
// all panels pass by.
constexpr Index kColumnsBytes = 512 * 1024, kColumnsRows = 48;

FASTRNN_FN int column_blocks(Index rows, Index row_bytes) {
  const Index most = larger(kColumnsRows, kColumnsBytes / larger(row_bytes, 1));
  return static_cast<int>(larger((rows + most / 2) / most, 1));
}
