// Elman's network (1990): h' = f(a), f = tanh or relu, a = W x + b_ih + R h + b_hh.

template <class F>
struct Rnn {
  static constexpr int kGates = 1, kSaved = F::kOptions ? 1 : 0, kGateGrads = 1,
                       kRecurrentGradOffset = 0;
  static constexpr bool kHasC = false, kPeephole = false, kLinearBeforeReset = false;
  static constexpr bool kResetBefore = false, kSavesH = true, kNeedsHPrev = false;
  static constexpr bool kOptions = F::kOptions;
  FASTRNN_FN static constexpr int input_block(int) { return 0; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    u.saved[0] = F::keep_candidate(u, u.a[0]);
    u.h = F::candidate(u, u.saved[0]);
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    u.dgates[0] = F::through_candidate(u, u.dh, kSaved ? u.saved[0] : u.h, u.h);
  }
};
