// One step of one cell between its products: a thread for each unit of each row. Rows are packed:
// all arrays of a step are C-contiguous and their first n rows are those that run.
//
// Letters: n rows, H hidden size, G gates, S saved values; null where a cell has none of it.

// Flat index of this thread among n * H.
FASTRNN_FN Index thread_index() { return Index(blockIdx.x) * blockDim.x + threadIdx.x; }

FASTRNN_FN V load(const Real* p) { return {*p}; }

// The gates whose recurrent product comes first: all, or those before a reset.
constexpr int kFirst = Cell::kResetBefore ? Cell::kGates - 1 : Cell::kGates;

FASTRNN_FN V pre_activation(int gate, Index row, Index unit, Index H, const Real* input,
                            const Real* recurrent, const Real* bias) {
  return load(input + (row * Cell::kGates + gate) * H + unit) + load(bias + gate * H + unit) +
         load(recurrent + (row * kFirst + gate) * H + unit);
}

// The two functions that only a cell with the reset before the product has; of the others, the
// kernels that call them do nothing.
template <class C>
FASTRNN_FN V reset(Unit<V>& u) {
  if constexpr (C::kResetBefore) return C::reset(u);
  return u.h_prev;
}
template <class C>
FASTRNN_FN V reset_backward(Unit<V>& u, V d_reset_h) {
  if constexpr (C::kResetBefore) return C::reset_backward(u, d_reset_h);
  return d_reset_h;
}

// Reset before: r and z, and r * h, which the product of the last gate takes in.
extern "C" __global__ void cell_reset(
    Index n, Index H,
    const Real* input,      // (n, G*H) W x
    const Real* recurrent,  // (n, (G-1)*H) R h of the gates before the last
    const Real* bias,       // (G*H,)
    const Real* h,          // (n, H)
    Real* saved,            // (n, S*H)
    Real* reset_h) {        // (n, H)
  if constexpr (Cell::kResetBefore) {
    const Index i = thread_index();
    if (i >= n * H) return;
    const Index row = i / H, unit = i % H;
    Unit<V> u;
    FASTRNN_UNROLL
    for (int g = 0; g < kFirst; ++g)
      u.a[g] = pre_activation(g, row, unit, H, input, recurrent, bias);
    u.h_prev = load(h + i);
    reset_h[i] = reset<Cell>(u).v;
    FASTRNN_UNROLL
    for (int g = 0; g < kFirst; ++g) saved[(row * Cell::kSaved + g) * H + unit] = u.saved[g].v;
  }
}

extern "C" __global__ void cell_forward(
    Index n, Index H,
    const Real* input,       // (n, G*H) W x
    const Real* recurrent,   // (n, G*H) R h; reset before: (n, H) of the last gate
    const Real* bias,        // (G*H,) of both sides, but that of a split last gate
    const Real* split_bias,  // (H,) b_hh of a split last gate
    const Real* peephole,    // (3*H,)
    Real* h,                 // (n, H) before; after, in place: what a projection takes in
    Real* c,                 // (n, H) in place
    Real* y,                 // (n, H) another copy of h, or null
    Real* all_c,             // (n, H) another copy of c, or null
    Real* saved) {           // (n, S*H) or null; reset before: holds what cell_reset wrote
  const Index i = thread_index();
  if (i >= n * H) return;
  const Index row = i / H, unit = i % H;
  constexpr int G = Cell::kGates;
  Unit<V> u;
  if constexpr (Cell::kResetBefore) {
    FASTRNN_UNROLL
    for (int g = 0; g < kFirst; ++g) u.saved[g] = load(saved + (row * Cell::kSaved + g) * H + unit);
    u.a[G - 1] = load(input + (row * G + G - 1) * H + unit) + load(bias + (G - 1) * H + unit) +
                 load(recurrent + i);
  } else {
    constexpr int kSummed = Cell::kSplitLast ? G - 1 : G;
    FASTRNN_UNROLL
    for (int g = 0; g < kSummed; ++g)
      u.a[g] = pre_activation(g, row, unit, H, input, recurrent, bias);
    if constexpr (Cell::kSplitLast) {
      u.a[G - 1] = load(input + (row * G + G - 1) * H + unit) + load(bias + (G - 1) * H + unit);
      u.recurrent = load(recurrent + (row * G + G - 1) * H + unit) + load(split_bias + unit);
    }
  }
  if constexpr (Cell::kNeedsHPrev) u.h_prev = load(h + i);
  if constexpr (Cell::kHasC) u.c_prev = load(c + i);
  if constexpr (Cell::kPeephole) {
    FASTRNN_UNROLL
    for (int k = 0; k < 3; ++k) u.peephole[k] = load(peephole + k * H + unit);
  }
  Cell::forward(u);
  h[i] = u.h.v;
  if (y) y[i] = u.h.v;
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

extern "C" __global__ void cell_backward(
    Index n, Index H,
    const Real* dh,        // (n, H) gradient of the cell's output
    const Real* dy,        // (n, H) what is added to it, or null
    const Real* saved,     // (n, S*H)
    const Real* h,         // (n, H) after the step
    const Real* h_prev,    // (n, H)
    const Real* c_prev,    // (n, H)
    const Real* c,         // (n, H)
    const Real* peephole,  // (3*H,)
    Real* dc,              // (n, H) in place
    Real* carry,           // (n, H) the part of dh_prev that does not pass R; may be dh
    Real* delta,           // (n, G*H) gradients of the pre-activations, input side
    Real* hidden,          // (n, G*H) the same of the recurrent side, where it differs
    Real* out) {           // (n, H) what a projection took in, or null
  const Index i = thread_index();
  if (i >= n * H) return;
  const Index row = i / H, unit = i % H;
  constexpr int G = Cell::kGates;
  Unit<V> u;
  u.dh = load(dh + i);
  if (dy) u.dh = u.dh + load(dy + i);
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
  Cell::backward(u);
  FASTRNN_UNROLL
  for (int g = 0; g < G; ++g) {
    const Index at = (row * G + g) * H + unit;
    // a reset's own gradient is still to come
    if (!(Cell::kResetBefore && g == 0)) delta[at] = u.delta[Cell::input_block(g)].v;
    if constexpr (Cell::kHiddenFirst > 0) hidden[at] = u.delta[Cell::kHiddenFirst + g].v;
  }
  if constexpr (Cell::kHasC) {
    dc[i] = u.dc.v;
    if (out) out[i] = u.h.v;
  }
  if constexpr (Cell::kNeedsHPrev) carry[i] = u.carry.v;
}

// Reset before: the gradient of r * h has come back through R_n; then r's own gradient.
extern "C" __global__ void cell_reset_backward(Index n, Index H,
                                               const Real* d_reset_h,  // (n, H)
                                               const Real* saved,      // (n, S*H)
                                               const Real* h_prev,     // (n, H)
                                               Real* carry,            // (n, H) in place
                                               Real* delta,            // (n, G*H)
                                               Real* reset_h) {        // (n, H) r * h
  if constexpr (Cell::kResetBefore) {
    const Index i = thread_index();
    if (i >= n * H) return;
    const Index row = i / H, unit = i % H;
    Unit<V> u;
    u.saved[0] = load(saved + row * Cell::kSaved * H + unit);
    u.h_prev = load(h_prev + i);
    u.carry = load(carry + i);
    reset_h[i] = reset_backward<Cell>(u, load(d_reset_h + i)).v;
    delta[row * Cell::kGates * H + unit] = u.delta[0].v;
    carry[i] = u.carry.v;
  }
}

// Zeros in the rows of a state (n, W) that begin anew.
extern "C" __global__ void restart(Index n, Index W, const unsigned char* cut, Real* state) {
  const Index i = thread_index();
  if (i < n * W && cut[i / W]) state[i] = 0;
}
