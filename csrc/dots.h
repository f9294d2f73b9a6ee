// Products by dot products of bfloat16: factors rounded once, sums in float32. Tile, panels and driver
// are those of floats (tile.h), of half the depth: where a number lies there, a pair of k lies here.

constexpr Index kPairsAtOnce = 128 * 1024 / 2;  // of rows, so that they stay in the L2 cache

FASTRNN_FN Index pairs_of(Index K) { return (K + 1) / 2; }
FASTRNN_FN Index whole_vectors(Index n) { return (n + 15) / 16 * 16; }

// Rows that are rounded at once, whole tiles of six or eight.
FASTRNN_FN Index dot_group(Index rows, Index K) {
  // a chunk of steps may have no rows to sum over: K = 0
  const Index most = kPairsAtOnce / whole_vectors(larger(1, pairs_of(K))) / 24 * 24;
  return smaller(rows, larger(24, most));
}

// From one pair of k to the next when rows are columns: an odd number of cache lines, so that they do
// not fall on one set of the cache.
FASTRNN_FN Index dot_stride(Index columns) { return whole_vectors(columns) | 16; }

// Halves of memory for products of up to so many rows and K.
FASTRNN_FN Index dot_scratch(Index rows, Index K) {
  return 2 * whole_vectors(pairs_of(K)) * dot_stride(dot_group(rows, K));
}

template <class V>
FASTRNN_FN Index dot_panels_size(const Panels<V>& panels, Index K) {
  return 2 * panels.size(pairs_of(K));
}

#ifdef FASTRNN_DOTS

// Rounds a share of packed panels.
template <class V>
FASTRNN_NOINLINE void pair_share(const Panels<V>& panels, const float* packed, Index K,
                                 const Share& share, Half* out) {
  const Index full = panels.U * panels.G * V::kLanes;
  Pair* to = reinterpret_cast<Pair*>(out) + share.begin * pairs_of(K) * full;
  const float* from = packed + share.begin * K * full;
  for (Index p = share.begin; p < share.end; ++p) {
    const Index width = p + 1 < panels.count() ? full : panels.last() * V::kLanes;
    for (Index k = 0; k < K; k += 2, from += 2 * width) {
      for (Index i = 0; i < width; i += V::kLanes, to += V::kLanes) {
        const V odd = k + 1 < K ? V::load(from + width + i) : V::broadcast(0);
        Pairs::zip(V::load(from + i), odd).store(to);
      }
    }
    if (K % 2) from -= width;
  }
}

// A stage whose rows begin .. end-1 are pairs in memory of the thread's own.
template <class V, class Stage>
struct DotStage {
  using Factor = Pairs;
  static constexpr bool kColumns = Stage::kColumns, kPieces = Stage::kPieces;
  static constexpr int kStep = Stage::kStep, kVectors = Stage::kVectors;

  Stage stage;
  Index begin, stride;
  Pair* pairs;

  FASTRNN_NOINLINE DotStage(const Stage& of, Index first, Index end, Index K, Half* scratch)
      : stage(of), begin(first), pairs(reinterpret_cast<Pair*>(scratch)) {
    if constexpr (kColumns) {
      stride = dot_stride(end - begin);
      const float* a = stage.base() + begin;
      Pair* to = pairs;
      for (Index k = 0; k < K; k += 2, a += 2 * stage.ld(), to += stride) {
        for (Index m = 0; m < end - begin; m += V::kLanes) {
          const Index left = end - begin - m;
          const V odd = k + 1 < K ? V::load(a + stage.ld() + m, left) : V::broadcast(0);
          Pairs::zip(V::load(a + m, left), odd).store(to + m);
        }
      }
    } else {
      stride = whole_vectors(pairs_of(K));
      Pair* to = pairs;
      for (Index m = begin; m < end; ++m) {
        const float* a = stage.row(m);
        for (Index k = 0; k < K; k += 2 * V::kLanes, to += V::kLanes) {
          const Index left = K - k;
          const V high =
              left > V::kLanes ? V::load(a + k + V::kLanes, left - V::kLanes) : V::broadcast(0);
          Pairs::of(V::load(a + k, left), high).store(to);
        }
      }
    }
  }

  FASTRNN_FN const Pair* row(Index m) const { return pairs + (m - begin) * stride; }
  FASTRNN_FN const Pair* base() const { return pairs - begin; }
  FASTRNN_FN Index ld() const { return stride; }
  FASTRNN_FN DotStage after(Index pair) const {
    DotStage next = *this;
    next.stage = stage.after(2 * pair), next.pairs += pair;
    return next;
  }

  template <int n_vectors>
  FASTRNN_FN void seed(Index m, Index p, V (&acc)[n_vectors]) const {
    stage.seed(m, p, acc);
  }
  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    stage.finish(m, p, acc);
  }
};

// Runs a stage over rows 0 .. rows-1 and a share of the panels; `scratch` as `dot_scratch` says.
template <class V, class Stage>
FASTRNN_NOINLINE void run_dots(const Stage& stage, const Panels<V>& panels, const Share& share,
                               Index rows, const Half* split, Index K, bool down, Half* scratch) {
  const Index group = dot_group(rows, K);
  for (Index m = 0; m < rows; m += group) {
    const Index end = smaller(rows, m + group);
    const DotStage<V, Stage> dots(stage, m, end, K, scratch);
    run_panels<V>(dots, {m, end, share.begin, share.end}, panels.count(), panels.last(),
                  reinterpret_cast<const Pair*>(split), pairs_of(K), down);
  }
}

#endif
