// Gated recurrent units (Cho et al. 2014): h' = (1 - z) * n + z * h,  r, z = sigmoid(a).

// Reset after the product, as cuDNN and PyTorch have it: n = tanh(x_n + r * (R_n h + b_hn)).
struct GruResetAfter {
  static constexpr int kGates = 3, kSaved = 4, kDeltas = 4, kHiddenFirst = 1;
  static constexpr bool kHasC = false, kPeephole = false, kSplitLast = true;
  static constexpr bool kResetBefore = false, kSavesH = false, kNeedsHPrev = true;
  // deltas n, r, z, hn: the input side is the first three, the hidden side the last three
  FASTRNN_FN static constexpr int input_block(int gate) { return gate == 2 ? 0 : gate + 1; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    const V r = sigmoid(u.a[0]), z = sigmoid(u.a[1]);
    const V n = tanh(fma(r, u.recurrent, u.a[2]));
    u.h = fma(z, u.h_prev - n, n);
    u.saved[0] = r, u.saved[1] = z, u.saved[2] = n, u.saved[3] = u.recurrent;
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V r = u.saved[0], z = u.saved[1], n = u.saved[2];
    const V da_n = (u.dh - u.dh * z) * tanh_slope(n);
    u.delta[0] = da_n;
    u.delta[1] = da_n * u.saved[3] * sigmoid_slope(r);
    u.delta[2] = u.dh * (u.h_prev - n) * sigmoid_slope(z);
    u.delta[3] = da_n * r;
    u.carry = u.dh * z;
  }
};

// Reset before the product, the paper's first form: n = tanh(x_n + R_n (r * h) + b_hn).
struct GruResetBefore {
  static constexpr int kGates = 3, kSaved = 3, kDeltas = 3, kHiddenFirst = 0;
  static constexpr bool kHasC = false, kPeephole = false, kSplitLast = false;
  static constexpr bool kResetBefore = true, kSavesH = false, kNeedsHPrev = true;
  FASTRNN_FN static constexpr int input_block(int gate) { return gate; }

  // first half: r and z from their products; returns r * h, what the product of n takes in
  template <class V>
  FASTRNN_FN static V reset(Unit<V>& u) {
    u.saved[0] = sigmoid(u.a[0]);
    u.saved[1] = sigmoid(u.a[1]);
    return u.saved[0] * u.h_prev;
  }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    const V z = u.saved[1];
    const V n = tanh(u.a[2]);
    u.h = fma(z, u.h_prev - n, n);
    u.saved[2] = n;
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V z = u.saved[1], n = u.saved[2];
    u.delta[1] = u.dh * (u.h_prev - n) * sigmoid_slope(z);
    u.delta[2] = (u.dh - u.dh * z) * tanh_slope(n);
    u.carry = u.dh * z;
  }

  // second half, with the gradient of r * h, which came back through R_n
  template <class V>
  FASTRNN_FN static V reset_backward(Unit<V>& u, V d_reset_h) {
    const V r = u.saved[0];
    u.delta[0] = d_reset_h * u.h_prev * sigmoid_slope(r);
    u.carry = fma(d_reset_h, r, u.carry);
    return r * u.h_prev;
  }
};
