// The functions of a cell, its second half beside its equations (lstm.h, gru.h, rnn.h): what is saved of
// a pre-activation, the activation of what was saved, and the gradient of the pre-activation.
//
//   keep_gate(unit, a), keep_candidate(unit, a)   what is saved of a
//   gate(unit, kept), candidate(unit, kept)       the activation
//   output(unit, c)                               that of an LSTM's c
//   through_gate(unit, d, kept, y), ..candidate   a's gradient, given that of the activation y: d
//   add_through_output(unit, sum, d, y)           the sum of the same for c, and of `sum`
//   coupled(unit)                                 LSTM: f = 1 - i

// sigmoid and tanh (an RNN's candidate may be relu), which are saved: their slopes follow from them.
template <bool kRelu = false>
struct Plain {
  static constexpr bool kOptions = false;

  template <class V>
  FASTRNN_FN static V keep_gate(const Unit<V>&, V a) {
    return sigmoid(a);
  }
  template <class V>
  FASTRNN_FN static V keep_candidate(const Unit<V>&, V a) {
    return kRelu ? relu(a) : tanh(a);
  }
  template <class V>
  FASTRNN_FN static V gate(const Unit<V>&, V kept) {
    return kept;
  }
  template <class V>
  FASTRNN_FN static V candidate(const Unit<V>&, V kept) {
    return kept;
  }
  template <class V>
  FASTRNN_FN static V output(const Unit<V>&, V c) {
    return tanh(c);
  }
  template <class V>
  FASTRNN_FN static V through_gate(const Unit<V>&, V d, V, V y) {
    return d * sigmoid_slope(y);
  }
  template <class V>
  FASTRNN_FN static V through_candidate(const Unit<V>&, V d, V, V y) {
    // min(NaN, 1) is 1: a NaN lets its gradient through, as a relu does that is shut by y <= 0 only
    return kRelu ? where_positive(min(y, V::broadcast(1)), d) : d * tanh_slope(y);
  }
  template <class V>
  FASTRNN_FN static V add_through_output(const Unit<V>&, V sum, V d, V y) {
    return fma(d, tanh_slope(y), sum);
  }
  template <class V>
  FASTRNN_FN static constexpr bool coupled(const Unit<V>&) {
    return false;
  }
};

// The activation of x.
template <class V>
FASTRNN_NOINLINE V activate(V x, Activation how, typename V::Real slope) {
  const V zero = V::broadcast(0), one = V::broadcast(1);
  switch (how) {
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::relu:
      return relu(x);
    default:  // hard_sigmoid
      return min(one, max(zero, V::broadcast(slope) * x + V::broadcast(0.5f)));
  }
}

// The gradient of x, given that of y = activate(x): d. Where there is none it is a choice of 0, not a
// product with 0: an infinite d must not become NaN there. As min(NaN, 1) is 1, NaN lets it through.
template <class V>
FASTRNN_NOINLINE V through(V d, V y, Activation how, typename V::Real slope) {
  const V one = V::broadcast(1);
  switch (how) {
    case Activation::tanh:
      return d * tanh_slope(y);
    case Activation::sigmoid:
      return d * sigmoid_slope(y);
    case Activation::relu:
      return where_positive(min(y, one), d);
    default:  // hard_sigmoid
      return where_positive(min(min(y, one - y), one), V::broadcast(slope) * d);
  }
}

// Those that the unit's options say. The clipped pre-activations are saved: whether one was clipped cannot
// be told from its activation.
struct Chosen {
  static constexpr bool kOptions = true;

  template <class V>
  FASTRNN_FN static V keep_gate(const Unit<V>& u, V a) {
    const V limit = V::broadcast(u.options.clip);
    return min(limit, max(-limit, a));
  }
  template <class V>
  FASTRNN_FN static V keep_candidate(const Unit<V>& u, V a) {
    return keep_gate(u, a);
  }
  template <class V>
  FASTRNN_FN static V gate(const Unit<V>& u, V kept) {
    return activate(kept, u.options.gate, u.options.slope);
  }
  template <class V>
  FASTRNN_FN static V candidate(const Unit<V>& u, V kept) {
    return activate(kept, u.options.candidate, u.options.slope);
  }
  template <class V>
  FASTRNN_FN static V output(const Unit<V>& u, V c) {
    return activate(c, u.options.output, u.options.slope);
  }
  template <class V>
  FASTRNN_FN static V through_gate(const Unit<V>& u, V d, V kept, V y) {
    return where_unclipped(u, kept, through(d, y, u.options.gate, u.options.slope));
  }
  template <class V>
  FASTRNN_FN static V through_candidate(const Unit<V>& u, V d, V kept, V y) {
    return where_unclipped(u, kept, through(d, y, u.options.candidate, u.options.slope));
  }
  template <class V>
  FASTRNN_FN static V add_through_output(const Unit<V>& u, V sum, V d, V y) {
    return sum + through(d, y, u.options.output, u.options.slope);
  }
  template <class V>
  FASTRNN_FN static bool coupled(const Unit<V>& u) {
    return u.options.coupled;
  }

 private:
  template <class V>
  FASTRNN_FN static V where_unclipped(const Unit<V>& u, V kept, V d) {
    const V room = V::broadcast(u.options.clip) - abs(kept);
    return where_positive(min(room, V::broadcast(1)), d);
  }
};
