// Products on the tile unit. Sums come out of the tiles a panel and 32 rows at a time, are added to
// what the accumulators start from, and go where those of the register tile (tile.h) go.

// The order of the terms' products (of A, of B): each step changes one side only, to save loads.
struct TermProducts {
  int count;
  std::uint8_t a[6], b[6];
};
constexpr TermProducts kTermProducts[] = {
    {1, {0}, {0}}, {3, {1, 0, 0}, {0, 0, 1}}, {6, {0, 0, 1, 1, 2, 0}, {2, 1, 1, 0, 0, 0}}};

// The registers of two by two tiles of C, two of A's column and two of B's row.
constexpr int tile_of_c(int r, int c) { return 2 * r + c; }
constexpr int kTileOfA = 4, kTileOfB = 6;

// Blocks of up to 16 rows each: a tile of fewer rows takes less time.
FASTRNN_NOINLINE void configure_blocks(Index first, Index second) {
  const auto a = static_cast<std::uint8_t>(first), b = static_cast<std::uint8_t>(second);
  tiles_configure({a, a, b, b, a, b, kTileRows, kTileRows});
}

// a: [row block, `a_stride` apart][depth][term]; b: [depth, `b_stride` apart][vector][term]
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

  // A sixth of the next depth's three terms of some tiles.
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

  template <int kTerms>
  FASTRNN_FN static void add(const TileFactors& of) {
    constexpr TermProducts products = kTermProducts[kTerms - 1];
    const Half *a = of.a, *b = of.b;
    const Index a_stride = of.a_stride, b_stride = of.b_stride, depth = of.depth;
    for (Index k = 0; k < depth; ++k, a += kTerms * kTileSize, b += b_stride) {
      FASTRNN_UNROLL
      for (int i = 0; i < products.count; ++i) {
        if (i == 0 || products.a[i] != products.a[i - 1])
          load_a(a + products.a[i] * kTileSize, a_stride);
        if (i == 0 || products.b[i] != products.b[i - 1])
          load_b(b + products.b[i] * kTileSize, kTerms * kTileSize);
        multiply();
        if constexpr (kC > 1 && kTerms == 3) {  // beyond the L2 cache, a tenth to a fifth faster
          prefetch(b + b_stride, kC, i);
          prefetch(a + kTerms * kTileSize, 1, i);
          if constexpr (kR > 1) prefetch(a + a_stride + kTerms * kTileSize, 1, i);
        }
      }
    }
  }

  // The sum of two products, of which the second may have no depth.
  template <int kTerms>
  FASTRNN_NOINLINE static void run(const TileFactors& first, const TileFactors& second, float* c,
                                   Index c_stride) {
    zero();
    add<kTerms>(first);
    add<kTerms>(second);
    store(c, c_stride);
  }

  FASTRNN_FN static void run(int terms, const TileFactors& first, const TileFactors& second,
                             float* c, Index c_stride) {
    if (terms == 3)
      run<3>(first, second, c, c_stride);
    else if (terms == 2)
      run<2>(first, second, c, c_stride);
    else
      run<1>(first, second, c, c_stride);
  }
};

// Splits a share of packed panels.
template <class V>
void split_panels(const Panels& panels, const float* packed, Index K, int terms, const Share& share,
                  Half* data) {
  const SplitPanels at(panels, K, terms);
  for (Index p = share.begin; p < share.end; ++p)
    reinterpret_cast<Range*>(data)[p] =
        split_panel(packed + panels.at(p, K), panels.vectors_in(p), K, terms, at.tiles(data, p));
}

// The terms of some blocks of rows and of a panel.
struct PanelFactors {
  const Half *a, *b;
  Index depth;

  FASTRNN_FN TileFactors at(int n, int vectors, Index tiles) const {
    return {a, depth * tiles, b + n * tiles, vectors * tiles, depth};
  }
};

constexpr Index kVectorStride = kTileRows * 16;  // of sums, in blocks [vector][row][lane]

// The sums of one or two blocks of rows: [block][vector][row][lane].
struct SplitBlocks {
  PanelFactors own, input;  // input: of what is added
  int terms, vectors;
  bool two;   // row blocks
  bool wide;  // two vectors at a time

  FASTRNN_NOINLINE void run(float* c) const {
    if (two && wide)
      columns<2, 2>(c);
    else if (two)
      columns<2, 1>(c);
    else
      columns<1, 1>(c);
  }

 private:
  // C vectors at a time and the rest alone
  template <int R, int C>
  FASTRNN_FN void columns(float* c) const {
    int n = 0;
    for (; n + C <= vectors; n += C) block<R, C>(n, c);
    if constexpr (C > 1) {
      if (n < vectors) block<R, 1>(n, c);
    }
  }

  template <int R, int C>
  FASTRNN_FN void block(int n, float* c) const {
    const Index tiles = terms * kTileSize;
    TileBlock<R, C>::run(terms, own.at(n, vectors, tiles), input.at(n, vectors, tiles),
                         c + n * kVectorStride, vectors * kVectorStride);
  }
};

// Adds what they start from to the sums of some rows of a block, and hands them on.
template <class V>
FASTRNN_NOINLINE void finish_rows(const Matmul<float>& of, Index p, Index m, Index rows, float* c) {
  const Panels& panels = of.panels;
  const int G = panels.gates, vectors = panels.vectors_in(p);
  for (Index r = 0; r < rows; ++r) {
    float* out = of.epilogue ? nullptr : of.out[m + r];
    for (int n = 0; n < vectors; ++n) {
      const int g = n % G;
      const Index unit = panels.unit(p) + n / G * V::kLanes,
                  left = of.out_is_padded ? V::kLanes : panels.N - unit;
      const Index at = g * of.gate_stride + unit;
      float* sum = c + n * kVectorStride + r * 16;
      V acc = V::broadcast(0);
      if (of.init == Init::given)
        acc = V::load(of.from[g] + (m + r) * of.from_stride[g] + unit,
                      of.epilogue ? Index(V::kLanes) : left);
      else if (of.init == Init::output)
        acc = V::load(out + at, left);
      acc = acc + V::load(sum);
      if (of.epilogue)
        acc.store(sum);
      else
        (of.add ? V::load(out + at, left) + acc : acc).store(out + at, left);
    }
  }
  if (of.epilogue)
    of.epilogue(of.step, {m, rows, panels.unit(p), panels.units_in(p), c, 16, kVectorStride});
}

// A bit for each row of some blocks.
FASTRNN_NOINLINE std::uint32_t rows_that_fit(const Range& panel, const Range* rows, int blocks) {
  std::uint32_t fit = 0;
  for (int i = 0; i < blocks * kTileRows; ++i) fit |= std::uint32_t{panel.fits(rows[i])} << i;
  return fit;
}

struct RowsFrom {
  const RowsAt<const float>& rows;
  Index m;
  FASTRNN_FN const float* operator()(Index r) const { return rows[m + r]; }
};

// Runs products of the same A; `scratch` as `split_scratch` says. With an input, of one term, its
// product is added. What does not fit the range of bfloat16's products is multiplied by `fma`.
template <class V>
void split_matmul(const Matmul<float>* products, int count, int terms, Half* scratch,
                  const SplitInput& input, FmaBlock fma, const void* kernels) {
  const Matmul<float>& given = products[0];
  const Index K = given.K, rows = given.M;
  const Index depth = tile_depth(K), depth_input = tile_depth(input.K);
  const Index group = split_group(rows, (depth + depth_input) * kTileDepth, terms);
  Half* input_scratch = scratch + group * depth * terms * kTileSize;
  const RowsAt<const float> input_rows{input.rows};
  alignas(64) float c[2 * kMaxTileVectors * kVectorStride];
  Index first = 0, second = 0;  // rows of the blocks that tiles are configured for
  for (Index m0 = 0; m0 < rows; m0 += group * kTileRows) {
    const Index m1 = smaller(rows, m0 + group * kTileRows);
    Range ranges[kGroupBlocks][kTileRows], blocks[kGroupBlocks];
    for (Index m = m0, i = 0; m < m1; m += kTileRows, ++i) {
      const Index n = smaller(kTileRows, m1 - m);
      Half* out = scratch + i * depth * terms * kTileSize;
      Half* out_input = input_scratch + i * depth_input * terms * kTileSize;
      if (input.K > 0) split_rows(RowsFrom{input_rows, m}, n, input.K, terms, out_input, ranges[i]);
      if (given.columns)
        split_columns(given.columns + m, given.ld, n, K, terms, out, ranges[i]);
      else
        split_rows(RowsFrom{given.rows, m}, n, K, terms, out, ranges[i]);
      for (const Range& row : ranges[i]) blocks[i].join(row);
    }
    for (const Matmul<float>* of = products; of < products + count; ++of) {
      const Panels& panels = of->panels;
      const Share& share = of->share;
      const SplitPanels at(panels, K, terms), at_input(panels, input.K, terms);
      // Two vectors at a time need fewer loads in all, one at a time fewer from beyond the L1 cache: 8.3
      // and 7.5 ns a multiplication where the panels lie in the L2 cache, 11.9 and 13.1 beyond it. Rows
      // of one term stay in the L1 cache in any case.
      const bool wide =
          terms == 1 || (share.end - share.begin) * at.stride * Index(sizeof(Half)) > 1 << 20;
      for (Index j = share.begin; j < share.end; ++j) {
        const Index p = of->reverse ? share.end - 1 - (j - share.begin) : j;
        const int vectors = panels.vectors_in(p);
        const Range& range = reinterpret_cast<const Range*>(of->split)[p];
        for (Index m = m0; m < m1; m += 2 * kTileRows) {
          const Index i = (m - m0) / kTileRows, end = smaller(m1, m + 2 * kTileRows);
          const bool two = m + kTileRows < m1;
          const Index in_first = smaller(kTileRows, end - m);
          const Index in_second = two ? end - m - kTileRows : kTileRows;
          if (in_first != first || in_second != second)
            configure_blocks(first = in_first, second = in_second);
          std::uint32_t fit = ~0u;
          if (terms > 1 && !(range.fits(blocks[i]) && (!two || range.fits(blocks[i + 1]))))
            fit = rows_that_fit(range, &ranges[i][0], two ? 2 : 1);
          if (fit)
            SplitBlocks{{scratch + i * depth * terms * kTileSize, at.tiles(of->split, p), depth},
                        {input_scratch + i * depth_input * terms * kTileSize,
                         input.K > 0 ? at_input.tiles(input.split, p) : nullptr, depth_input},
                        terms,
                        vectors,
                        two,
                        wide}
                .run(c);
          // Runs of rows that fit, within a block; a row at a time what does not, so that what is
          // beside it in a block changes no bit.
          for (Index r = m; r < end;) {
            const Index in = r - m;
            if (!(fit >> in & 1)) {
              fma(*of, kernels, r, r + 1, p);
              ++r;
              continue;
            }
            Index run = 1;
            while (r + run < end && (in + run) % kTileRows && (fit >> (in + run) & 1)) ++run;
            finish_rows<V>(*of, p, r, run,
                           c + in / kTileRows * vectors * kVectorStride + in % kTileRows * 16);
            r += run;
          }
        }
      }
    }
  }
  tiles_release();
}
