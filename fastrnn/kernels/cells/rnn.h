// Elman's network (1990): h' = f(a), f = tanh or relu, a = W x + b_ih + R h + b_hh.

template <bool kRelu>
struct Rnn {
  static constexpr int kGates = 1, kSaved = 0, kDeltas = 1, kHiddenFirst = 0;
  static constexpr bool kHasC = false, kPeephole = false, kSplitLast = false;
  static constexpr bool kResetBefore = false, kSavesH = true, kNeedsHPrev = false;
  FASTRNN_FN static constexpr int input_block(int) { return 0; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    u.h = kRelu ? relu(u.a[0]) : tanh(u.a[0]);
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    // min(NaN, 1) is 1: a NaN lets its gradient through, as a relu does that is shut by h <= 0 only
    u.delta[0] = kRelu ? where_positive(min(u.h, V::broadcast(1)), u.dh) : u.dh * tanh_slope(u.h);
  }
};
