// Stages (stages.h) run on the tile unit. Sums come out of the tiles a panel and 32 rows at a time,
// are added to what the stage seeds, and are finished by it as those of tile.h are.

// The order of the parts' products (of A, of B): each step changes one side only, to save loads.
struct PartProducts {
  int count;
  std::uint8_t a[6], b[6];
};
constexpr PartProducts kPartProducts[] = {
    {1, {0}, {0}}, {3, {1, 0, 0}, {0, 0, 1}}, {6, {0, 0, 1, 1, 2, 0}, {2, 1, 1, 0, 0, 0}}};

// The registers of two by two tiles of C, two of A's column and two of B's row.
constexpr int tile_of_c(int r, int c) { return 2 * r + c; }
constexpr int kTileOfA = 4, kTileOfB = 6;

// Blocks of up to 16 rows each: a tile of fewer rows takes less time.
FASTRNN_NOINLINE void configure_blocks(Index first, Index second) {
  const auto a = static_cast<std::uint8_t>(first), b = static_cast<std::uint8_t>(second);
  tiles_configure({a, a, b, b, a, b, kTileRows, kTileRows});
}

// a: [row block, `a_stride` apart][depth][part]; b: [depth, `b_stride` apart][vector][part]
struct TileFactors {
  const Half* a;
  Index a_stride;
  const Half* b;
  Index b_stride, depth;
};

// C of kR x kC tiles, A's column of tiles, B's row of tiles, all in registers; both at most 2.
template <int kR, int kC>
struct TileBlock {
  static constexpr int kA = kTileOfA, kB = kTileOfB;

  FASTRNN_FN static void zero() {
    tile_zero<tile_of_c(0, 0)>();
    if constexpr (kC > 1) tile_zero<tile_of_c(0, 1)>();
    if constexpr (kR > 1) tile_zero<tile_of_c(1, 0)>();
    if constexpr (kR > 1 && kC > 1) tile_zero<tile_of_c(1, 1)>();
  }

  FASTRNN_FN static void load_a(const Half* a, Index stride) {
    tile_load<kA>(a);
    if constexpr (kR > 1) tile_load<kA + 1>(a + stride);
  }

  FASTRNN_FN static void load_b(const Half* b, Index stride) {
    tile_load<kB>(b);
    if constexpr (kC > 1) tile_load<kB + 1>(b + stride);
  }

  FASTRNN_FN static void multiply() {
    tile_multiply<tile_of_c(0, 0), kA, kB>();
    if constexpr (kR > 1) tile_multiply<tile_of_c(1, 0), kA + 1, kB>();
    if constexpr (kC > 1) tile_multiply<tile_of_c(0, 1), kA, kB + 1>();
    if constexpr (kR > 1 && kC > 1) tile_multiply<tile_of_c(1, 1), kA + 1, kB + 1>();
  }

  // A sixth of the next depth's three parts of some tiles.
  FASTRNN_FN static void prefetch(const Half* from, int tiles, int sixth) {
    const int lines = tiles * 3 * kTileRows / 6;
    const char* first = reinterpret_cast<const char*>(from) + sixth * lines * 64;
    FASTRNN_UNROLL
    for (int i = 0; i < lines; ++i) _mm_prefetch(first + i * 64, _MM_HINT_T0);
  }

  FASTRNN_FN static void store(float* c, Index stride) {
    tile_store<tile_of_c(0, 0)>(c);
    if constexpr (kC > 1) tile_store<tile_of_c(0, 1)>(c + kTileRows * 16);
    if constexpr (kR > 1) tile_store<tile_of_c(1, 0)>(c + stride);
    if constexpr (kR > 1 && kC > 1) tile_store<tile_of_c(1, 1)>(c + stride + kTileRows * 16);
  }

  template <int kParts>
  FASTRNN_FN static void add(const TileFactors& of) {
    constexpr PartProducts products = kPartProducts[kParts - 1];
    const Half *a = of.a, *b = of.b;
    const Index a_stride = of.a_stride, b_stride = of.b_stride, depth = of.depth;
    for (Index k = 0; k < depth; ++k, a += kParts * kTileSize, b += b_stride) {
      FASTRNN_UNROLL
      for (int i = 0; i < products.count; ++i) {
        if (i == 0 || products.a[i] != products.a[i - 1])
          load_a(a + products.a[i] * kTileSize, a_stride);
        if (i == 0 || products.b[i] != products.b[i - 1])
          load_b(b + products.b[i] * kTileSize, kParts * kTileSize);
        multiply();
        if constexpr (kC > 1 && kParts == 3) {  // beyond the L2 cache, a tenth to a fifth faster
          prefetch(b + b_stride, kC, i);
          prefetch(a + kParts * kTileSize, 1, i);
          if constexpr (kR > 1) prefetch(a + a_stride + kParts * kTileSize, 1, i);
        }
      }
    }
  }

  // The sum of two products, of which the second may have no depth.
  template <int kParts>
  FASTRNN_NOINLINE static void run(const TileFactors& first, const TileFactors& second, float* c,
                                   Index c_stride) {
    zero();
    add<kParts>(first);
    add<kParts>(second);
    store(c, c_stride);
  }

  FASTRNN_FN static void run(int parts, const TileFactors& first, const TileFactors& second,
                             float* c, Index c_stride) {
    if (parts == 3)
      run<3>(first, second, c, c_stride);
    else if (parts == 2)
      run<2>(first, second, c, c_stride);
    else
      run<1>(first, second, c, c_stride);
  }
};

// Splits a share of packed panels.
template <class V>
FASTRNN_NOINLINE void split_share(const Panels<V>& panels, const float* packed, Index K, int parts,
                                  const Share& share, Half* data) {
  const SplitPanels at(panels, K, parts);
  for (Index p = share.begin; p < share.end; ++p) {
    const int vectors = p + 1 < panels.count() ? panels.U * panels.G : panels.last();
    const float* from = packed + p * K * panels.U * panels.G * V::kLanes;
    reinterpret_cast<Range*>(data)[p] = split_panel(from, vectors, K, parts, at.tiles(data, p));
  }
}

// The parts of some blocks of rows and of a panel.
struct PanelFactors {
  const Half *a, *b;
  Index depth;

  FASTRNN_FN TileFactors at(int n, int vectors, Index tiles) const {
    return {a, depth * tiles, b + n * tiles, vectors * tiles, depth};
  }
};

template <class V, class Stage>
struct SplitWork {
  const Stage& stage;
  Index m, rows, p;  // up to 32 rows from m on; panel
  int parts;
  PanelFactors own, input;  // input: of what is added to the stage's own product
  bool two;                 // row blocks
  bool wide;                // two vectors at a time
  std::uint32_t wanted;     // of the rows

  template <int N>
  FASTRNN_NOINLINE void run() const {  // with_vectors, which calls it, is compiled for less
    constexpr Index kStride = N * kTileRows * 16;
    alignas(64) float c[2 * kStride];
    if (two && wide)
      columns<2, 2, N>(c);
    else if (two)
      columns<2, 1, N>(c);
    else
      columns<1, 1, N>(c);
    for (Index r = 0; r < rows; ++r) {
      if (!(wanted >> r & 1)) continue;
      const float* from = c + r / kTileRows * kStride + r % kTileRows * 16;
      V acc[N];
      stage.seed(m + r, p, acc);
      FASTRNN_UNROLL
      for (int n = 0; n < N; ++n) acc[n] = acc[n] + V::load(from + n * kTileRows * 16);
      stage.finish(m + r, p, acc);
    }
  }

 private:
  // N vectors, C at a time and the rest alone
  template <int R, int C, int N>
  FASTRNN_FN void columns(float* c) const {
    int n = 0;
    for (; n + C <= N; n += C) block<R, C, N>(n, c);
    if constexpr (N % C > 0) block<R, N % C, N>(n, c);
  }

  template <int R, int C, int N>
  FASTRNN_FN void block(int n, float* c) const {
    const Index tiles = parts * kTileSize;
    TileBlock<R, C>::run(parts, own.at(n, N, tiles), input.at(n, N, tiles), c + n * kTileRows * 16,
                         N * kTileRows * 16);
  }
};

// A bit for each row of some blocks.
FASTRNN_NOINLINE std::uint32_t rows_that_fit(const Range& panel, const Range* rows, int blocks) {
  std::uint32_t fit = 0;
  for (int i = 0; i < blocks * kTileRows; ++i) fit |= std::uint32_t{panel.fits(rows[i])} << i;
  return fit;
}

template <class Stage>
struct StageRow {
  const Stage& stage;
  Index m;
  FASTRNN_FN const float* operator()(Index r) const { return stage.row(m + r); }
};

struct ListedRow {
  const float* const* rows;
  FASTRNN_FN const float* operator()(Index r) const { return rows[r]; }
};

// Runs stages, whose rows 0 .. rows-1 are the same, over their panels; `scratch` as `split_scratch` says.
// With an input, of one part, its product is added.
template <class V, class Stage>
FASTRNN_NOINLINE void run_split(const Operand<V, Stage>* operands, int count, Index rows, Index K,
                                int parts, bool down, Half* scratch, const SplitInput& input = {}) {
  constexpr int N = Stage::kVectors;
  const Stage& given = operands[0].stage;
  const Index depth = tile_depth(K), depth_input = tile_depth(input.K);
  const Index group = split_group(rows, (depth + depth_input) * kTileDepth, parts);
  Half* input_scratch = scratch + group * depth * parts * kTileSize;
  Index first = 0, second = 0;  // rows of the blocks that tiles are configured for
  for (Index m0 = 0; m0 < rows; m0 += group * kTileRows) {
    const Index m1 = smaller(rows, m0 + group * kTileRows);
    Range ranges[kGroupBlocks][kTileRows], blocks[kGroupBlocks];
    for (Index m = m0, i = 0; m < m1; m += kTileRows, ++i) {
      const Index n = smaller(kTileRows, m1 - m);
      Half* out = scratch + i * depth * parts * kTileSize;
      Half* out_input = input_scratch + i * depth_input * parts * kTileSize;
      if (input.K > 0)
        split_rows(ListedRow{input.rows + m}, n, input.K, parts, out_input, ranges[i]);
      if constexpr (Stage::kColumns)
        split_columns(given.base() + m, given.ld(), n, K, parts, out, ranges[i]);
      else
        split_rows(StageRow<Stage>{given, m}, n, K, parts, out, ranges[i]);
      for (const Range& row : ranges[i]) blocks[i].join(row);
    }
    for (const Operand<V, Stage>* of = operands; of < operands + count; ++of) {
      const Stage& stage = of->stage;
      const Panels<V>& panels = of->panels;
      const Share& share = of->share;
      const Half* split = of->parts;
      const SplitPanels at(panels, K, parts), at_input(panels, input.K, parts);
      // Two vectors at a time need fewer loads in all, one at a time fewer from beyond the L1 cache: 8.3
      // and 7.5 ns a multiplication where the panels lie in the L2 cache, 11.9 and 13.1 beyond it. Rows
      // of one part stay in the L1 cache in any case.
      const bool wide =
          parts == 1 || (share.end - share.begin) * at.stride * Index(sizeof(Half)) > 1 << 20;
      for (Index j = share.begin; j < share.end; ++j) {
        const Index p = down ? share.end - 1 - (j - share.begin) : j;
        const int vectors = p + 1 < panels.count() ? N : panels.last();
        const Range& range = reinterpret_cast<const Range*>(split)[p];
        for (Index m = m0; m < m1; m += 2 * kTileRows) {
          const Index i = (m - m0) / kTileRows, end = smaller(m1, m + 2 * kTileRows);
          const bool two = m + kTileRows < m1;
          const Index in_first = smaller(kTileRows, end - m);
          const Index in_second = two ? end - m - kTileRows : kTileRows;
          if (in_first != first || in_second != second)
            configure_blocks(first = in_first, second = in_second);
          std::uint32_t wanted = ~0u;
          if (parts > 1 && !(range.fits(blocks[i]) && (!two || range.fits(blocks[i + 1]))))
            wanted = rows_that_fit(range, &ranges[i][0], two ? 2 : 1);
          if (wanted)
            with_vectors<N, Stage::kStep>(
                vectors, SplitWork<V, Stage>{
                             stage,
                             m,
                             end - m,
                             p,
                             parts,
                             {scratch + i * depth * parts * kTileSize, at.tiles(split, p), depth},
                             {input_scratch + i * depth_input * parts * kTileSize,
                              input.K > 0 ? at_input.tiles(input.split, p) : nullptr, depth_input},
                             two,
                             wide,
                             wanted});
          // a row at a time, so that what is beside it in a block changes no bit
          for (Index r = m; r < end && ~wanted; ++r) {
            if (!(wanted >> (r - m) & 1))
              run_panels<V>(stage, {r, r + 1, p, p + 1}, panels.count(), panels.last(), of->packed,
                            K, false);
          }
        }
      }
    }
  }
  tiles_release();
}
