// One step of one cell between its products: a thread for each unit of each row. The arrays are
// those of step.h.

// Flat index of this thread among n * H.
FASTRNN_FN Index thread_index() { return Index(blockIdx.x) * blockDim.x + threadIdx.x; }

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
    set_options(u);
    reset_h[i] = reset<Cell>(u).v;
    FASTRNN_UNROLL
    for (int g = 0; g < kFirst; ++g) saved[(row * Cell::kSaved + g) * H + unit] = u.saved[g].v;
  }
}

extern "C" __global__ void cell_forward(
    Index n, Index H, const Real* input,
    const Real* recurrent,  // (n, G*H) R h; reset before: (n, H) of the last gate
    const Real* bias, const Real* split_bias, const Real* peephole,
    Real* h,  // (n, H) before; after, in place: what a projection takes in
    Real* c,
    Real* y,  // (n, H) another copy of h, or null
    Real* all_c, Real* saved) {
  const Index i = thread_index();
  if (i >= n * H) return;
  const Index row = i / H, unit = i % H;
  const Forward step{H, input, bias, split_bias, peephole, c, all_c, saved};
  Real sums[Cell::kGates];
  FASTRNN_UNROLL
  for (int g = 0; g < Cell::kGates; ++g)
    sums[g] = Cell::kResetBefore ? recurrent[i] : recurrent[(row * Cell::kGates + g) * H + unit];
  Unit<V> u = step.begin(row, unit, Cell::kNeedsHPrev ? h[i] : Real(0));
  step.finish(u, unit, sums);
  step.store(u, row, unit);
  h[i] = u.h.v;
  if (y) y[i] = u.h.v;
}

extern "C" __global__ void cell_backward(
    Index n, Index H,
    const Real* dh,  // (n, H) gradient of the cell's output
    const Real* dy,  // (n, H) what is added to it, or null
    const Real* saved, const Real* h, const Real* h_prev, const Real* c_prev, const Real* c,
    const Real* peephole, Real* dc,
    Real* dh_direct,  // (n, H) the part of dh_prev that does not pass R; may be dh
    Real* dgates, Real* hidden, Real* out) {
  const Index i = thread_index();
  if (i >= n * H) return;
  const Backward step{H, saved, h, h_prev, c_prev, c, peephole, dc, dgates, hidden, out};
  Unit<V> u = step.begin(i / H, i % H);
  const Real part = step.finish(u, dy ? dh[i] + dy[i] : dh[i]);
  step.store(u, i / H, i % H);
  if constexpr (Cell::kNeedsHPrev) dh_direct[i] = part;
}

// Reset before: the gradient of r * h has come back through R_n; then r's own gradient.
extern "C" __global__ void cell_reset_backward(Index n, Index H,
                                               const Real* d_reset_h,  // (n, H)
                                               const Real* saved,      // (n, S*H)
                                               const Real* h_prev,     // (n, H)
                                               Real* dh_direct,        // (n, H) in place
                                               Real* dgates,           // (n, G*H)
                                               Real* reset_h) {        // (n, H) r * h
  if constexpr (Cell::kResetBefore) {
    const Index i = thread_index();
    if (i >= n * H) return;
    const Index row = i / H, unit = i % H;
    Unit<V> u;
    u.saved[0] = load(saved + row * Cell::kSaved * H + unit);
    u.h_prev = load(h_prev + i);
    u.dh_direct = load(dh_direct + i);
    set_options(u);
    reset_h[i] = reset_backward<Cell>(u, load(d_reset_h + i)).v;
    dgates[row * Cell::kGates * H + unit] = u.dgates[0].v;
    dh_direct[i] = u.dh_direct.v;
  }
}

// Zeros in the rows of a state (n, W) that begin anew.
extern "C" __global__ void restart(Index n, Index W, const unsigned char* cut, Real* state) {
  const Index i = thread_index();
  if (i < n * W && cut[i / W]) state[i] = 0;
}
