// The packed matrices of a pass, and products with them.

template <class V>
struct Matrix {
  Panels<V> panels;
  Index K;
  Index at;         // in the packed weights
  Index at_split;   // in the split ones
  Index at_narrow;  // in the narrow ones, in bytes
  Halves how;       // its products are made
  bool present;
  // Forward: the parameter that it is made of, from which gate on.
  const typename V::Real* Weights<const typename V::Real>::* parameter = nullptr;
  int first_gate = 0;

  FASTRNN_FN Matrix of(const typename V::Real* Weights<const typename V::Real>::* member,
                       int gate = 0) const {
    Matrix matrix = *this;
    matrix.parameter = member, matrix.first_gate = gate;
    return matrix;
  }
};

// Halves of memory for the parts of so many panels.
template <class V>
FASTRNN_FN Index parts_size(const Panels<V>& panels, Index K, Halves how) {
  if (kDots<V> && how.dots) return dot_panels_size(panels, K);
  if (kTiles<V> && how.tiles()) return SplitPanels(panels, K, how.parts).size;
  return 0;
}

// Makes the parts of a share of packed panels.
template <class V>
FASTRNN_FN void split_panels(const Panels<V>& panels, const typename V::Real* packed, Index K,
                             Halves how, const Share& share, Half* out) {
  if constexpr (kDots<V>) {
    if (how.dots) pair_share(panels, packed, K, share, out);
  }
  if constexpr (kTiles<V>) {
    if (how.tiles()) split_share(panels, packed, K, how.parts, share, out);
  }
}

// Says where matrices lie, one behind the other, and how much memory they need together.
template <class V>
struct Layout {
  WeightType type;
  Index size = 0, split_size = 0, narrow_size = 0;

  FASTRNN_FN Matrix<V> take(const Panels<V>& panels, Index K, Halves how, bool present = true) {
    const Matrix<V> matrix{panels, K, size, split_size, narrow_size, how, present};
    if (present) {
      size += panels.size(K);
      split_size += parts_size(panels, K, how);
      narrow_size += narrow_bytes(panels, K, type);
    }
    return matrix;
  }

  // Whether the weights have so many bytes.
  FASTRNN_FN bool past_caches(Index bytes) const {
    return size * static_cast<Index>(sizeof(typename V::Real)) >= bytes;
  }

  // A vector that is kept as it is; before all matrices, so that it lies at the same place in packed
  // and in narrow weights.
  FASTRNN_FN Index take_vector(Index n) {
    const Index at = size;
    narrow_size += whole_lines(n * static_cast<Index>(sizeof(typename V::Real)));
    size = narrow_size / static_cast<Index>(sizeof(typename V::Real));
    return at;
  }
};

// Runs stages, whose rows are the same, over their panels; in parts of bfloat16 if there are any.
template <class V, class Stage>
FASTRNN_FN void run_products(const Operand<V, Stage>* operands, int count, Index rows, Halves how,
                             Half* scratch, Index K, bool down = false) {
  if constexpr (kTiles<V>) {
    if (how.tiles() && K > 0)  // a step may have no rows to sum over
      return run_split(operands, count, rows, K, how.parts, down, scratch);
  }
  for (const Operand<V, Stage>* of = operands; of < operands + count; ++of) {
    if constexpr (kDots<V>) {
      if (how.dots) {
        run_dots(of->stage, of->panels, of->share, rows, of->parts, K, down, scratch);
        continue;
      }
    }
    const Index row_bytes = K * static_cast<Index>(sizeof(*of->packed));
    const int blocks = Stage::kColumns ? column_blocks(rows, row_bytes) : 1;
    for (int i = 0; i < blocks; ++i) {
      const Share own(rows, i, blocks, V::tile_rows(Stage::kVectors));
      run_panels<V>(of->stage, {own.begin, own.end, of->share.begin, of->share.end},
                    of->panels.count(), of->panels.last(), of->packed, K, down != (i % 2 > 0));
    }
  }
}

// Halves of memory that a thread needs for products of up to so many rows.
template <class V>
FASTRNN_FN Index product_scratch(Index rows, Index K, Halves how) {
  if (kDots<V> && how.dots) return dot_scratch(rows, K);
  if (kTiles<V> && how.tiles()) return split_scratch(rows, K, how.parts);
  return 0;
}

// A call's weights, and a thread's memory for the parts of its rows.
template <class V>
struct Products {
  const typename V::Real* packed;
  WeightType type;
  Weights<const typename V::Real> parameters;
  const Half* parts;
  Half* scratch;
  typename V::Real* wide;  // a panel, of weights that are narrow or not packed

  // Halves of memory for products of up to so many rows.
  FASTRNN_FN static Index scratch_size(const Matrix<V>& matrix, Index rows) {
    return matrix.present ? product_scratch<V>(rows, matrix.K, matrix.how) : 0;
  }
  // Numbers of memory for a panel of a matrix.
  FASTRNN_FN static Index wide_size(const Matrix<V>& matrix) {
    return matrix.present ? matrix.K * matrix.panels.U * matrix.panels.G * V::kLanes : 0;
  }

  // Runs a stage with the product of the input's rows x added, in one part on the tile unit.
  template <class Stage>
  FASTRNN_FN void run_with_input(const Stage& stage, const Matrix<V>& matrix,
                                 const Matrix<V>& input, const typename V::Real* const* x,
                                 const Share& share, Index rows, bool down) const {
    if constexpr (kTiles<V>) {
      const Operand<V, Stage> of{stage, matrix.panels, share, packed + matrix.at,
                                 parts + matrix.at_split};
      run_split(&of, 1, rows, matrix.K, 1, down, scratch, {x, parts + input.at_split, input.K});
    }
  }

  // Runs a stage over rows 0 .. rows-1 and a share of the panels; of parts, if they are there, unless
  // they are `few` rows.
  template <class Stage>
  FASTRNN_FN void run(const Stage& stage, const Matrix<V>& matrix, const Share& share, Index rows,
                      bool down = false, bool few = false) const {
    if (type == WeightType::unpacked) return run_unpacked_product(stage, matrix, share, rows);
    if constexpr (kNarrows<V>) {
      if (type != WeightType::real) return run_narrow_product(stage, matrix, share, rows, down);
    }
    const Operand<V, Stage> of{stage, matrix.panels, share, packed + matrix.at,
                               parts ? parts + matrix.at_split : nullptr};
    run_products(&of, 1, rows, few ? Halves{} : matrix.how, scratch, matrix.K, down);
  }

 private:
  // Packs a panel and uses it while it is near.
  template <class Stage>
  FASTRNN_FN void run_unpacked_product(const Stage& stage, const Matrix<V>& matrix,
                                       const Share& share, Index rows) const {
    const Panels<V>& panels = matrix.panels;
    const Block block{0, rows, share.begin, share.end};
    for (Index p = share.begin; p < share.end; ++p) {
      panels.pack_panel(parameters.*matrix.parameter, matrix.first_gate, matrix.K, p, false, wide);
      run_panel<V>(stage, block, p, panels.vectors_in(p), wide, matrix.K);
    }
  }

  template <class Stage>
  FASTRNN_FN void run_narrow_product(const Stage& stage, const Matrix<V>& matrix,
                                     const Share& share, Index rows, bool down) const {
    const char* at = reinterpret_cast<const char*>(packed) + matrix.at_narrow;
    const Block block{0, rows, share.begin, share.end};
    const Index count = matrix.panels.count(), K = matrix.K;
    const int last = matrix.panels.last();
    if (type == WeightType::bfloat16)
      run_narrow<V>(stage, block, count, last, reinterpret_cast<const Half*>(at), nullptr, K, down,
                    wide);
    else
      run_narrow<V>(stage, block, count, last, reinterpret_cast<const std::int8_t*>(at),
                    scales_of(matrix.panels, K, const_cast<char*>(at)), K, down, wide);
  }
};
