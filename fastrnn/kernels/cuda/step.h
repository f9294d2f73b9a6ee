// One step of one cell at one unit of one row: what the kernels load, compute and store around the
// cell's maths. Rows are packed: all arrays of a step are C-contiguous, and their first n rows are
// those that run.
// `begin` loads, `finish` computes, `store` stores.
//
// Letters: n rows, H hidden size, G gates, S saved values. Null where a cell or a call has none of
// it.

FASTRNN_FN V load(const Real* p) { return {*p}; }

// The gates whose recurrent product comes first: all, or those before a reset.
constexpr int kFirst = Cell::kResetBefore ? Cell::kGates - 1 : Cell::kGates;

// The arrays of one step forward.
struct Forward {
  Index H;
  const Real* input;       // (n, G*H) W x
  const Real* bias;        // (G*H,) of both sides, but that of a split last gate
  const Real* split_bias;  // (H,) b_hh of a split last gate
  const Real* peephole;    // (3*H,)
  Real* c;                 // (n, H) in place
  Real* all_c;             // (n, H) another copy of c
  Real* saved;             // (n, S*H); reset before: holds what cell_reset wrote

  // What one unit needs besides R h. Nothing is computed of it before that is there: an operation on
  // what is still on its way from memory would wait for it, and all that follows.
  FASTRNN_FN Unit<V> begin(Index row, Index unit, Real h_prev) const {
    constexpr int G = Cell::kGates;
    Unit<V> u;
    if constexpr (Cell::kResetBefore) {
      FASTRNN_UNROLL
      for (int g = 0; g < kFirst; ++g)
        u.saved[g] = load(saved + (row * Cell::kSaved + g) * H + unit);
    }
    FASTRNN_UNROLL
    for (int g = 0; g < G; ++g) {
      if (Cell::kResetBefore && g < kFirst) continue;
      u.a[g] = load(input + (row * G + g) * H + unit);
    }
    if constexpr (Cell::kLinearBeforeReset) u.recurrent = load(split_bias + unit);
    if constexpr (Cell::kNeedsHPrev) u.h_prev = V{h_prev};
    if constexpr (Cell::kHasC) u.c_prev = load(c + row * H + unit);
    if constexpr (Cell::kPeephole) {
      FASTRNN_UNROLL
      for (int k = 0; k < 3; ++k) u.peephole[k] = load(peephole + k * H + unit);
    }
    return u;
  }

  // Takes R h of a unit's gates (reset before: of the last one), and computes the cell.
  FASTRNN_FN void finish(Unit<V>& u, Index unit, const Real (&recurrent)[Cell::kGates]) const {
    constexpr int G = Cell::kGates;
    FASTRNN_UNROLL
    for (int g = Cell::kResetBefore ? kFirst : 0; g < G; ++g) {
      u.a[g] = u.a[g] + load(bias + g * H + unit);
      if (!(Cell::kLinearBeforeReset && g == G - 1)) u.a[g] = u.a[g] + V{recurrent[g]};
    }
    if constexpr (Cell::kLinearBeforeReset) u.recurrent = V{recurrent[G - 1]} + u.recurrent;
    set_options(u);
    Cell::forward(u);
  }

  // All but h.
  FASTRNN_FN void store(const Unit<V>& u, Index row, Index unit) const {
    const Index i = row * H + unit;
    if constexpr (Cell::kHasC) {
      c[i] = u.c.v;
      if (all_c) all_c[i] = u.c.v;
    }
    if (saved) {
      FASTRNN_UNROLL
      for (int s = 0; s < Cell::kSaved; ++s)
        saved[(row * Cell::kSaved + s) * H + unit] = u.saved[s].v;
    }
  }
};

// The arrays of one step backward.
struct Backward {
  Index H;
  const Real* saved;     // (n, S*H)
  const Real* h;         // (n, H) after the step
  const Real* h_prev;    // (n, H)
  const Real* c_prev;    // (n, H)
  const Real* c;         // (n, H)
  const Real* peephole;  // (3*H,)
  Real* dc;              // (n, H) in place
  Real* dgates;          // (n, G*H) gradients of the pre-activations, input side
  Real* hidden;          // (n, G*H) the same of the recurrent side, where it differs
  Real* out;             // (n, H) what a projection took in, or null

  // What one unit needs besides the gradient of its output.
  FASTRNN_FN Unit<V> begin(Index row, Index unit) const {
    const Index i = row * H + unit;
    Unit<V> u;
    FASTRNN_UNROLL
    for (int s = 0; s < Cell::kSaved; ++s)
      u.saved[s] = load(saved + (row * Cell::kSaved + s) * H + unit);
    if constexpr (Cell::kSavesH) u.h = load(h + i);
    if constexpr (Cell::kNeedsHPrev) u.h_prev = load(h_prev + i);
    if constexpr (Cell::kHasC) {
      u.c_prev = load(c_prev + i);
      u.c = load(c + i);
      u.dc = load(dc + i);
    }
    if constexpr (Cell::kPeephole) {
      FASTRNN_UNROLL
      for (int k = 0; k < 3; ++k) u.peephole[k] = load(peephole + k * H + unit);
    }
    return u;
  }

  // Takes the gradient of a unit's output, and computes the cell. Returns the part of dh_prev that
  // does not pass R.
  FASTRNN_FN static Real finish(Unit<V>& u, Real dh) {
    u.dh = V{dh};
    set_options(u);
    Cell::backward(u);
    if constexpr (Cell::kNeedsHPrev) return u.dh_direct.v;
    return 0;
  }

  FASTRNN_FN void store(const Unit<V>& u, Index row, Index unit) const {
    constexpr int G = Cell::kGates;
    const Index i = row * H + unit;
    FASTRNN_UNROLL
    for (int g = 0; g < G; ++g) {
      const Index at = (row * G + g) * H + unit;
      // a reset's own gradient is still to come
      if (!(Cell::kResetBefore && g == 0)) dgates[at] = u.dgates[Cell::input_block(g)].v;
      if constexpr (Cell::kRecurrentGradOffset > 0)
        hidden[at] = u.dgates[Cell::kRecurrentGradOffset + g].v;
    }
    if constexpr (Cell::kHasC) {
      dc[i] = u.dc.v;
      if (out) out[i] = u.h.v;
    }
  }
};
