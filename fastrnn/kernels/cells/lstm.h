// Long short-term memory (Hochreiter and Schmidhuber 1997) with the forget gate of Gers, Schmidhuber
// and Cummins (2000) and, on request, the peepholes of Gers and Schmidhuber (2000):
//   c' = f * c + i * g,  h' = o * tanh(c'),  i, f, o = sigmoid(a), g = tanh(a)
// with a_i += p_i * c, a_f += p_f * c, a_o += p_o * c'.

template <bool kWithPeephole>
struct Lstm {
  static constexpr int kGates = 4, kSaved = 4, kDeltas = 4, kHiddenFirst = 0;
  static constexpr bool kHasC = true, kPeephole = kWithPeephole, kSplitLast = false;
  static constexpr bool kResetBefore = false, kSavesH = false, kNeedsHPrev = false;
  FASTRNN_FN static constexpr int input_block(int gate) { return gate; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    if constexpr (kPeephole) {
      u.a[0] = fma(u.peephole[0], u.c_prev, u.a[0]);
      u.a[1] = fma(u.peephole[1], u.c_prev, u.a[1]);
    }
    const V i = sigmoid(u.a[0]), f = sigmoid(u.a[1]), g = tanh(u.a[2]);
    u.c = fma(f, u.c_prev, i * g);
    if constexpr (kPeephole) u.a[3] = fma(u.peephole[2], u.c, u.a[3]);
    const V o = sigmoid(u.a[3]);
    u.h = o * tanh(u.c);
    u.saved[0] = i, u.saved[1] = f, u.saved[2] = g, u.saved[3] = o;
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V i = u.saved[0], f = u.saved[1], g = u.saved[2], o = u.saved[3];
    const V t = tanh(u.c);
    const V da_o = u.dh * t * sigmoid_slope(o);
    V dc = fma(u.dh * o, tanh_slope(t), u.dc);
    if constexpr (kPeephole) dc = fma(u.peephole[2], da_o, dc);
    const V da_i = dc * g * sigmoid_slope(i);
    const V da_f = dc * u.c_prev * sigmoid_slope(f);
    const V da_g = dc * i * tanh_slope(g);
    u.dc = dc * f;
    if constexpr (kPeephole) {
      u.dc = fma(u.peephole[0], da_i, u.dc);
      u.dc = fma(u.peephole[1], da_f, u.dc);
    }
    u.delta[0] = da_i, u.delta[1] = da_f, u.delta[2] = da_g, u.delta[3] = da_o;
    u.h = o * t;  // what a projection took in
  }
};
