// A cell between its loads and its stores: what takes the sums of a product (epilogues), and one step
// backward. Compiled once for each cell, for one and for two vectors at a time.

template <class Cell>
constexpr CellTraits traits_of(const char* name) {
  CellTraits traits{name,
                    Cell::kGates,
                    Cell::kSaved,
                    Cell::kGateGrads,
                    Cell::kRecurrentGradOffset,
                    Cell::kHasC,
                    Cell::kPeephole,
                    Cell::kLinearBeforeReset,
                    Cell::kResetBefore,
                    Cell::kSavesH,
                    Cell::kNeedsHPrev,
                    {}};
  for (int g = 0; g < Cell::kGates; ++g) traits.input_block[g] = Cell::input_block(g);
  return traits;
}

// Calls work.run(UnitVectors, their sums) for all units of all rows, two vectors at a time, or
// Work::kAtOnce = 1; kRowsFirst: the same units of all rows before the next ones. Where things are is passed by value: a store of a vector
// may be to anywhere for all that a compiler knows, who would read it again after each.
template <class V, int kGates, bool kRowsFirst, class Work>
FASTRNN_FN void for_units(const Work& work, const TileSums<typename V::Real> s, Index H) {
  using Real = typename V::Real;
  const Index row = s.row_stride, unit = kGates * s.vector_stride;
  Index m = 0, u = 0;
  constexpr int n = Work::kAtOnce;
  for (Index left = s.rows * s.units; left > 0; left -= n) {
    Index in_row[n], at[n];
    const Real* sums[n];
    FASTRNN_UNROLL
    for (int i = 0; i < n; ++i) {
      in_row[i] = s.m + m, at[i] = s.unit + u * V::kLanes;
      sums[i] = s.sums + m * row + u * unit;
      if (kRowsFirst) {
        if (++m == s.rows) m = 0, ++u;
      } else {
        if (++u == s.units) u = 0, ++m;
      }
    }
    if (n == 1 || left == 1) {
      const Real* const one[] = {sums[0]};
      work.run(UnitVectors<V, 1>{{in_row[0]}, {at[0]}, {H - at[0]}}, one);
    } else if constexpr (n == 2) {
      const Real* const two[] = {sums[0], sums[1]};
      work.run(UnitVectors<V, 2>{{in_row[0], in_row[1]}, {at[0], at[1]}, {H - at[0], H - at[1]}},
               two);
    }
  }
}

// Vectors at a time. Those of a cell with options wait for the functions that its options choose between,
// which are not inlined.
template <class Cell>
constexpr int at_once() {
  return Cell::kOptions ? 1 : 2;
}

template <class V>
FASTRNN_FN V load_sum(const typename V::Real* const (&sums)[1], Index offset) {
  return V::load(sums[0] + offset);
}
template <class V>
FASTRNN_FN Two<V> load_sum(const typename V::Real* const (&sums)[2], Index offset) {
  return {V::load(sums[0] + offset), V::load(sums[1] + offset)};
}

// The epilogue of the recurrent product of gates First .. First+Count-1; where they complete it, the
// cell.
template <class V, class Cell, int First, int Count>
struct ForwardEpilogue {
  using Real = typename V::Real;
  static constexpr int G = Cell::kGates, kAtOnce = at_once<Cell>();
  static constexpr bool kReset = First + Count < G;  // only the gates before a reset

  const ForwardStep<Real>& step;
  Index vector_stride;

  FASTRNN_NOINLINE static void call(const void* step, const TileSums<Real>& sums) {
    const auto of = *static_cast<const ForwardStep<Real>*>(step);
    for_units<V, Count, true>(ForwardEpilogue{of, sums.vector_stride}, sums, of.H);
  }

  template <int n>
  FASTRNN_FN void run(const UnitVectors<V, n>& at, const Real* const (&sums)[n]) const {
    const Index H = step.H;
    Unit<typename UnitVectors<V, n>::Value> u;
    if constexpr (Cell::kOptions) u.options = step.options;
    FASTRNN_UNROLL
    for (int g = 0; g < Count; ++g) u.a[First + g] = load_sum<V>(sums, g * vector_stride);
    if constexpr (Cell::kLinearBeforeReset) {
      u.recurrent = u.a[G - 1];
      u.a[G - 1] = at.load_padded(step.gates, G * step.padded, (G - 1) * step.padded);
    }
    if constexpr (Cell::kNeedsHPrev) u.h_prev = at.load(step.h_prev);
    if constexpr (kReset) {
      at.store(Cell::reset(u), step.reset_h);
      FASTRNN_UNROLL
      for (int g = 0; g < Count; ++g)
        at.store_padded(u.saved[g], step.gates, G * step.padded, g * step.padded);
    } else {
      FASTRNN_UNROLL
      for (int g = 0; g < First; ++g)
        u.saved[g] = at.load_padded(step.gates, G * step.padded, g * step.padded);
      if constexpr (Cell::kHasC) u.c_prev = at.load(step.c_prev);
      if constexpr (Cell::kPeephole) {
        FASTRNN_UNROLL
        for (int i = 0; i < 3; ++i) u.peephole[i] = at.load_vector(step.peephole + i * H);
      }
      Cell::forward(u);
      if constexpr (Cell::kHasC) at.store(u.c, step.c);
      at.store(u.h, step.h);
      if (step.save) {
        FASTRNN_UNROLL
        for (int s = 0; s < Cell::kSaved; ++s) at.store(u.saved[s], step.saved, s * H);
      }
    }
  }
};

// Reset before: the gradient of r * h comes back through R_n; then r's own gradient.
template <class V, class Cell>
struct ResetBackwardEpilogue {
  using Real = typename V::Real;
  static constexpr int kAtOnce = at_once<Cell>();

  const BackwardStep<Real>& step;

  FASTRNN_NOINLINE static void call(const void* step, const TileSums<Real>& sums) {
    const auto of = *static_cast<const BackwardStep<Real>*>(step);
    for_units<V, 1, true>(ResetBackwardEpilogue{of}, sums, of.H);
  }

  template <int n>
  FASTRNN_FN void run(const UnitVectors<V, n>& at, const Real* const (&sums)[n]) const {
    Unit<typename UnitVectors<V, n>::Value> u;
    if constexpr (Cell::kOptions) u.options = step.options;
    u.saved[0] = at.load(step.saved);
    u.h_prev = at.load(step.h_prev);
    u.dh_direct = at.load(step.dh);
    at.store(Cell::reset_backward(u, load_sum<V>(sums, 0)), step.dgates, step.reset_at);
    at.store(u.dgates[0], step.dgates);
    at.store(u.dh_direct, step.dh);
  }
};

// One step backward.
template <class V, class Cell>
struct Backward {
  using Real = typename V::Real;
  static constexpr int kAtOnce = at_once<Cell>();

  const BackwardStep<Real>& step;

  FASTRNN_NOINLINE static void call(const BackwardStep<Real>& step, Index rows, Index begin,
                                    Index end) {
    const TileSums<Real> all{0,       rows, begin, (end - begin + V::kLanes - 1) / V::kLanes,
                             nullptr, 0,    0};
    const BackwardStep<Real> of = step;
    for_units<V, 1, false>(Backward{of}, all, of.H);
  }

  template <int n>
  FASTRNN_FN void run(const UnitVectors<V, n>& at, const Real* const (&)[n]) const {
    const Index H = step.H;
    Unit<typename UnitVectors<V, n>::Value> u;
    if constexpr (Cell::kOptions) u.options = step.options;
    if (step.d_out[at.m[0]]) {
      u.dh = at.load(step.d_out);
    } else {
      u.dh = at.load(step.dh);
      if (step.dy[at.m[0]]) u.dh = u.dh + at.load(step.dy);
    }
    FASTRNN_UNROLL
    for (int s = 0; s < Cell::kSaved; ++s) u.saved[s] = at.load(step.saved, s * H);
    if constexpr (Cell::kSavesH) u.h = at.load(step.h);
    if constexpr (Cell::kNeedsHPrev) u.h_prev = at.load(step.h_prev);
    if constexpr (Cell::kHasC) {
      u.c_prev = at.load(step.c_prev);
      u.c = at.load(step.c);
      u.dc = at.load(step.dc);
    }
    if constexpr (Cell::kPeephole) {
      FASTRNN_UNROLL
      for (int i = 0; i < 3; ++i) u.peephole[i] = at.load_vector(step.peephole + i * H);
    }
    Cell::backward(u);
    FASTRNN_UNROLL
    for (int d = 0; d < Cell::kGateGrads; ++d) {
      // a reset's own gradient is still to come
      if (!(Cell::kResetBefore && d == 0)) at.store(u.dgates[d], step.dgates, d * H);
    }
    if constexpr (Cell::kHasC) {
      at.store(u.dc, step.dc);
      if (step.output_at >= 0) at.store(u.h, step.dgates, step.output_at);
    }
    if constexpr (Cell::kNeedsHPrev) at.store(u.dh_direct, step.dh);
  }
};

template <class V, class Cell>
constexpr CellKernels<typename V::Real> cell_kernels(const char* name) {
  constexpr int G = Cell::kGates;
  if constexpr (Cell::kResetBefore)
    return {traits_of<Cell>(name), ForwardEpilogue<V, Cell, G - 1, 1>::call,
            ForwardEpilogue<V, Cell, 0, G - 1>::call, Backward<V, Cell>::call,
            ResetBackwardEpilogue<V, Cell>::call};
  else
    return {traits_of<Cell>(name), ForwardEpilogue<V, Cell, 0, G>::call, nullptr,
            Backward<V, Cell>::call, nullptr};
}
