// Long short-term memory (Hochreiter and Schmidhuber 1997) with the forget gate of Gers, Schmidhuber
// and Cummins (2000) and, on request, the peepholes of Gers and Schmidhuber (2000):
//   c' = f * c + i * g,  h' = o * tanh(c'),  i, f, o = sigmoid(a), g = tanh(a)
// or other activations, and f = 1 - i (Greff et al. 2017),
// with a_i += p_i * c, a_f += p_f * c, a_o += p_o * c'.

template <class F, bool kWithPeephole>
struct Lstm {
  static constexpr int kGates = 4, kSaved = 4, kGateGrads = 4, kRecurrentGradOffset = 0;
  static constexpr bool kHasC = true, kPeephole = kWithPeephole, kLinearBeforeReset = false;
  static constexpr bool kResetBefore = false, kSavesH = false, kNeedsHPrev = false;
  static constexpr bool kOptions = F::kOptions;
  FASTRNN_FN static constexpr int input_block(int gate) { return gate; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    if constexpr (kPeephole) {
      u.a[0] = fma(u.peephole[0], u.c_prev, u.a[0]);
      u.a[1] = fma(u.peephole[1], u.c_prev, u.a[1]);
    }
    u.saved[0] = F::keep_gate(u, u.a[0]), u.saved[1] = F::keep_gate(u, u.a[1]);
    u.saved[2] = F::keep_candidate(u, u.a[2]);
    const V i = F::gate(u, u.saved[0]), f = forget(u, i), g = F::candidate(u, u.saved[2]);
    u.c = fma(f, u.c_prev, i * g);
    if constexpr (kPeephole) u.a[3] = fma(u.peephole[2], u.c, u.a[3]);
    u.saved[3] = F::keep_gate(u, u.a[3]);
    u.h = F::gate(u, u.saved[3]) * F::output(u, u.c);
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    const V i = F::gate(u, u.saved[0]), f = forget(u, i), g = F::candidate(u, u.saved[2]);
    const V o = F::gate(u, u.saved[3]), t = F::output(u, u.c);
    const V da_o = F::through_gate(u, u.dh * t, u.saved[3], o);
    V dc = F::add_through_output(u, u.dc, u.dh * o, t);
    if constexpr (kPeephole) dc = fma(u.peephole[2], da_o, dc);
    const V di = F::coupled(u) ? dc * (g - u.c_prev) : dc * g;
    const V da_i = F::through_gate(u, di, u.saved[0], i);
    V da_f = V::broadcast(0);
    if (!F::coupled(u)) da_f = F::through_gate(u, dc * u.c_prev, u.saved[1], f);
    const V da_g = F::through_candidate(u, dc * i, u.saved[2], g);
    u.dc = dc * f;
    if constexpr (kPeephole) {
      u.dc = fma(u.peephole[0], da_i, u.dc);
      u.dc = fma(u.peephole[1], da_f, u.dc);
    }
    u.dgates[0] = da_i, u.dgates[1] = da_f, u.dgates[2] = da_g, u.dgates[3] = da_o;
    u.h = o * t;  // what a projection took in
  }

 private:
  template <class V>
  FASTRNN_FN static V forget(const Unit<V>& u, V i) {
    return F::coupled(u) ? V::broadcast(1) - i : F::gate(u, u.saved[1]);
  }
};
