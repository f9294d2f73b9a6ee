// What goes on at the two ends of a tile: stages for run_panels (tile.h).
//
// Vector n of a panel belongs to unit vector n / G and gate n % G (panels.h). A full panel has
// kVectors vectors, a last one a multiple of kStep.

// A row of X against plain panels: out(m)[n] (+)= sum over k of rows(m)[k] * B[k][n].
template <class V>
struct RowStage {
  using Real = typename V::Real;
  using Factor = V;
  static constexpr bool kColumns = false, kPieces = true;
  static constexpr int kStep = 1, kVectors = Panels<V>::units(1);

  const Real* const* rows;
  Real* const* out;
  Index N;
  bool accumulate;
  Index from = 0;  // the k that is the first of a row

  FASTRNN_FN const Real* row(Index m) const { return rows[m] + from; }
  FASTRNN_FN RowStage after(Index k) const { return {rows, out, N, accumulate || k > 0, from + k}; }

  template <int n_vectors>
  FASTRNN_FN void seed(Index m, Index p, V (&acc)[n_vectors]) const {
    const Index first = p * kVectors * V::kLanes;
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const Index unit = first + n * V::kLanes;
      acc[n] = accumulate ? V::load(out[m] + unit, N - unit) : V::broadcast(0);
    }
  }

  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    const Index first = p * kVectors * V::kLanes;
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const Index unit = first + n * V::kLanes;
      acc[n].store(out[m] + unit, N - unit);
    }
  }
};

// Weight gradients: a sum over rows k of a[k][m] * B[k][n], which takes up the one in `from`, if there is
// any, is written to out[m][n], or added to what is there.
template <class V>
struct ColumnStage {
  using Real = typename V::Real;
  using Factor = V;
  static constexpr bool kColumns = true, kPieces = false;
  static constexpr int kStep = 1, kVectors = Panels<V>::units(1);

  const Real* a;
  Index lda;
  const Real* from;
  Real* out;
  Index N;
  bool add;

  FASTRNN_FN const Real* base() const { return a; }
  FASTRNN_FN Index ld() const { return lda; }

  // also fetches the row that the next tile has in this one's place
  template <int n_vectors>
  FASTRNN_FN void seed(Index m, Index p, V (&acc)[n_vectors]) const {
    const Index first = p * kVectors * V::kLanes;
    const Index ahead = V::tile_rows(n_vectors) * N * static_cast<Index>(sizeof(Real));
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const Index unit = first + n * V::kLanes;
      acc[n] = from ? V::load(from + m * N + unit, N - unit) : V::broadcast(0);
      prefetch<true>(out + m * N + unit, ahead);
    }
  }

  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    const Index first = p * kVectors * V::kLanes;
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const Index unit = first + n * V::kLanes;
      Real* to = out + m * N + unit;
      (add ? V::load(to, N - unit) + acc[n] : acc[n]).store(to, N - unit);
    }
  }
};

// The input projection: gates(m)[g*H + unit] = bias[g*H + unit] + W x.
template <class V, int G>
struct ProjectStage {
  using Real = typename V::Real;
  using Factor = V;
  static constexpr bool kColumns = false, kPieces = false;
  static constexpr int kStep = G, kVectors = Panels<V>::units(G) * G;

  const Real* const* rows;
  const Real* bias;  // (G*H,)
  Real* gates;       // (rows, G*H)
  Index H;

  FASTRNN_FN const Real* row(Index m) const { return rows[m]; }
  FASTRNN_FN static Index unit(Index p, int n) { return (p * (kVectors / G) + n / G) * V::kLanes; }

  template <int n_vectors>
  FASTRNN_FN void seed(Index, Index p, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n)
      acc[n] = V::load(bias + n % G * H + unit(p, n), H - unit(p, n));
  }

  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n)
      acc[n].store(gates + m * G * H + n % G * H + unit(p, n), H - unit(p, n));
  }
};

// Rows of one forward step, by sorted row m.
template <class Real>
struct StepRows {
  const Real** h_prev;  // (P,)
  const Real** c_prev;  // (H,)
  Real** c;             // (H,)
  Real** h;             // (H,) the cell's output: y's row, or what a projection takes in
  Real** saved;         // (S*H,) null when nothing is kept
  Real** reset_h;       // (H,) reset before: r * h
  Real* gates;          // (rows, G*H) the projected input
  const Real* seeds;  // what the recurrent product starts from, a row: `gates`, or one for all rows
  Index seeds_stride;
};

// The recurrent product of gates First .. First+Count-1 and, where they complete it, the cell.
template <class V, class Cell, int First, int Count>
struct CellStage {
  using Real = typename V::Real;
  using Factor = V;
  static constexpr bool kColumns = false, kPieces = false;
  static constexpr int kStep = Count, kVectors = Panels<V>::units(Count) * Count;
  static constexpr int G = Cell::kGates;
  static constexpr bool kReset = First + Count < G;  // only the gates before a reset

  const StepRows<Real>& step;
  const Real* split_bias;  // (H,) kSplitLast: b_hh of the last gate
  const Real* peephole;    // (3*H,)
  Index H;
  bool keep;

  FASTRNN_FN const Real* row(Index m) const {
    if constexpr (First > 0) return step.reset_h[m];
    return step.h_prev[m];
  }
  FASTRNN_FN static Index unit(Index p, int n) {
    return (p * (kVectors / Count) + n / Count) * V::kLanes;
  }

  template <int n_vectors>
  FASTRNN_FN void seed(Index m, Index p, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const int g = First + n % Count;
      const bool apart = Cell::kSplitLast && g == G - 1;
      const Real* from = apart ? split_bias : step.seeds + m * step.seeds_stride + g * H;
      acc[n] = V::load(from + unit(p, n), H - unit(p, n));
    }
  }

  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; n += Count) finish_units(m, unit(p, n), acc + n);
  }

  FASTRNN_FN void finish_units(Index m, Index at, const V* acc) const {
    const Index left = H - at;
    Real* gates = step.gates + m * G * H + at;
    Unit<V> u;
    FASTRNN_UNROLL
    for (int g = 0; g < Count; ++g) u.a[First + g] = acc[g];
    if constexpr (Cell::kSplitLast) {
      u.recurrent = acc[Count - 1];
      u.a[G - 1] = V::load(gates + (G - 1) * H, left);
    }
    if constexpr (Cell::kNeedsHPrev) u.h_prev = V::load(step.h_prev[m] + at, left);
    if constexpr (kReset) {
      Cell::reset(u).store(step.reset_h[m] + at, left);
      FASTRNN_UNROLL
      for (int g = 0; g < Count; ++g) u.saved[g].store(gates + g * H, left);
    } else {
      FASTRNN_UNROLL
      for (int g = 0; g < First; ++g) u.saved[g] = V::load(gates + g * H, left);
      if constexpr (Cell::kHasC) u.c_prev = V::load(step.c_prev[m] + at, left);
      if constexpr (Cell::kPeephole) {
        FASTRNN_UNROLL
        for (int i = 0; i < 3; ++i) u.peephole[i] = V::load(peephole + i * H + at, left);
      }
      Cell::forward(u);
      if constexpr (Cell::kHasC) u.c.store(step.c[m] + at, left);
      u.h.store(step.h[m] + at, left);
      if (keep) {
        FASTRNN_UNROLL
        for (int s = 0; s < Cell::kSaved; ++s) u.saved[s].store(step.saved[m] + s * H + at, left);
      }
    }
  }
};

// Rows of one backward step, by sorted row m.
template <class Real>
struct BackRows {
  const Real** h_prev;  // (P,)
  const Real** c_prev;  // (H,)
  const Real** h;       // (P,)
  const Real** c;       // (H,)
  const Real** saved;   // (S*H,)
  const Real** dy;      // (P,) or null
  const Real** d_out;   // (H,) projected: the gradient of the cell's output; else null
  Real** dh;            // (P,)
  Real** dc;            // (H,)
  Real** delta;         // (D*H, ...) gradients of the pre-activations and what follows them
};

// Reset before: the gradient of r * h comes back through R_n; then r's own gradient.
template <class V, class Cell>
struct ResetBackStage {
  using Real = typename V::Real;
  using Factor = V;
  static constexpr bool kColumns = false, kPieces = false;
  static constexpr int kStep = 1, kVectors = Panels<V>::units(1);

  const BackRows<Real>& step;
  Index H;
  Index reset_at;  // where r * h goes in a row of delta

  FASTRNN_FN const Real* row(Index m) const { return step.delta[m] + (Cell::kGates - 1) * H; }

  template <int n_vectors>
  FASTRNN_FN void seed(Index, Index, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) acc[n] = V::broadcast(0);
  }

  template <int n_vectors>
  FASTRNN_FN void finish(Index m, Index p, V (&acc)[n_vectors]) const {
    FASTRNN_UNROLL
    for (int n = 0; n < n_vectors; ++n) {
      const Index at = (p * kVectors + n) * V::kLanes, left = H - at;
      Unit<V> u;
      u.saved[0] = V::load(step.saved[m] + at, left);
      u.h_prev = V::load(step.h_prev[m] + at, left);
      u.carry = V::load(step.dh[m] + at, left);
      Cell::reset_backward(u, acc[n]).store(step.delta[m] + reset_at + at, left);
      u.delta[0].store(step.delta[m] + at, left);
      u.carry.store(step.dh[m] + at, left);
    }
  }
};
