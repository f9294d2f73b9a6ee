// Gated recurrent units (Cho et al. 2014): h' = (1 - z) * n + z * h,  r, z = sigmoid(a). Other activations
// than sigmoid and tanh are those of `Chosen`.

// Reset after the product, as cuDNN and PyTorch have it: n = tanh(x_n + r * (R_n h + b_hn)).
template <class F>
struct GruResetAfter {
  static constexpr int kGates = 3, kSaved = 4, kGateGrads = 4, kRecurrentGradOffset = 1;
  static constexpr bool kHasC = false, kPeephole = false, kLinearBeforeReset = true;
  static constexpr bool kResetBefore = false, kSavesH = false, kNeedsHPrev = true;
  static constexpr bool kOptions = F::kOptions;
  // gate_grads n, r, z, hn: the input side is the first three, the hidden side the last three
  FASTRNN_FN static constexpr int input_block(int gate) { return gate == 2 ? 0 : gate + 1; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    u.saved[0] = F::keep_gate(u, u.a[0]), u.saved[1] = F::keep_gate(u, u.a[1]);
    const V r = F::gate(u, u.saved[0]), z = F::gate(u, u.saved[1]);
    u.saved[2] = F::keep_candidate(u, fma(r, u.recurrent, u.a[2]));
    const V n = F::candidate(u, u.saved[2]);
    u.h = fma(z, u.h_prev - n, n);
    u.saved[3] = u.recurrent;
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V r = F::gate(u, u.saved[0]), z = F::gate(u, u.saved[1]);
    const V n = F::candidate(u, u.saved[2]);
    const V da_n = F::through_candidate(u, u.dh - u.dh * z, u.saved[2], n);
    u.dgates[0] = da_n;
    u.dgates[1] = F::through_gate(u, da_n * u.saved[3], u.saved[0], r);
    u.dgates[2] = F::through_gate(u, u.dh * (u.h_prev - n), u.saved[1], z);
    u.dgates[3] = da_n * r;
    u.dh_direct = u.dh * z;
  }
};

// Reset before the product, the paper's first form: n = tanh(x_n + R_n (r * h) + b_hn).
template <class F>
struct GruResetBefore {
  static constexpr int kGates = 3, kSaved = 3, kGateGrads = 3, kRecurrentGradOffset = 0;
  static constexpr bool kHasC = false, kPeephole = false, kLinearBeforeReset = false;
  static constexpr bool kResetBefore = true, kSavesH = false, kNeedsHPrev = true;
  static constexpr bool kOptions = F::kOptions;
  FASTRNN_FN static constexpr int input_block(int gate) { return gate; }

  // first half: r and z from their products; returns r * h, what the product of n takes in
  template <class V>
  FASTRNN_FN static V reset(Unit<V>& u) {
    u.saved[0] = F::keep_gate(u, u.a[0]), u.saved[1] = F::keep_gate(u, u.a[1]);
    return F::gate(u, u.saved[0]) * u.h_prev;
  }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    u.saved[2] = F::keep_candidate(u, u.a[2]);
    const V z = F::gate(u, u.saved[1]), n = F::candidate(u, u.saved[2]);
    u.h = fma(z, u.h_prev - n, n);
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V z = F::gate(u, u.saved[1]), n = F::candidate(u, u.saved[2]);
    u.dgates[1] = F::through_gate(u, u.dh * (u.h_prev - n), u.saved[1], z);
    u.dgates[2] = F::through_candidate(u, u.dh - u.dh * z, u.saved[2], n);
    u.dh_direct = u.dh * z;
  }

  // second half, with the gradient of r * h, which came back through R_n
  template <class V>
  FASTRNN_FN static V reset_backward(Unit<V>& u, V d_reset_h) {
    const V r = F::gate(u, u.saved[0]);
    u.dgates[0] = F::through_gate(u, d_reset_h * u.h_prev, u.saved[0], r);
    u.dh_direct = fma(d_reset_h, r, u.dh_direct);
    return r * u.h_prev;
  }
};
