// Sigmoid and tanh from the primitives of a value type V: a SIMD vector on the CPU, a scalar on the
// GPU. Read by g++ (csrc/engine.h) and by NVRTC; includes nothing.
//
// V offers + - * /, fma, min, max, abs, copy_sign and V::broadcast. Every operation is correctly
// rounded, so any two vector widths give the same bits. min(a, b) and max(a, b) return b when either
// is NaN; the argument is always given as b.
//
// Powers of two are made of a whole number n and of the sum kWhole + n, whose low bits are n's;
// V takes which of the two it likes:
//   power_of_two(n, sum)  2^n for 2^n a normal number
//   scale(a, n, sum)      a * 2^n for 1/2 < a < 2 and n up to that of infinity: 2^n may lie outside
//                         the numbers where a * 2^n does not
//
// Accuracy, tested in tests/test_activations.py: at most 3 ULP for both functions and both types
// (float and double), sigmoid where its value is a normal number.

template <class Real>
struct ExpConstants;

// q(r) ~ (e^r - 1 - r) / r^2 on |r| <= ln(2)/2, minimax (Remez): error 6.3e-8
template <>
struct ExpConstants<float> {
  static constexpr int kDegree = 4;
  static constexpr float kLog2E = 1.44269504f;
  static constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: n * kLn2High is exact
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kWhole = 0x1.8p23f;  // its last place is 1
  static constexpr float kMost = 89.0f;       // e^89 overflows: sigmoid(-89) is 0
  static constexpr float kLeast = -86.0f;     // 1 + e^-86 rounds to 1
  static constexpr float kTanhLimit = 10.0f;  // tanh(10) rounds to 1
  FASTRNN_FN static constexpr float coefficient(int i) {
    constexpr float c[] = {0x1p-1f, 0x1.5554dcp-3f, 0x1.5554b8p-5f, 0x1.120be6p-7f,
                           0x1.6d75f6p-10f};
    return c[i];
  }
};

// the same, error 1.0e-16
template <>
struct ExpConstants<double> {
  static constexpr int kDegree = 9;
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits
  static constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kWhole = 0x1.8p52;
  static constexpr double kMost = 710.0;
  static constexpr double kLeast = -708.0;
  static constexpr double kTanhLimit = 20.0;
  FASTRNN_FN static constexpr double coefficient(int i) {
    constexpr double c[] = {0x1.0000000000001p-1,  0x1.5555555555558p-3,  0x1.5555555553d36p-5,
                            0x1.111111110f7dcp-7,  0x1.6c16c1789d223p-10, 0x1.a01a01b01e42bp-13,
                            0x1.a019b8ca2373cp-16, 0x1.71ddf68294359p-19, 0x1.2891d4fc6a533p-22,
                            0x1.af63856447e1cp-26};
    return c[i];
  }
};

// e^x = 2^n (1 + p): Cody and Waite's reduction, r = x - n ln 2, and p = r + r^2 q(r)
template <class V>
struct ExpParts {
  V n, sum, p;
};

template <class V>
FASTRNN_FN ExpParts<V> exp_parts(V x) {
  using K = ExpConstants<typename V::Real>;
  const V whole = V::broadcast(K::kWhole);
  const V sum = fma(x, V::broadcast(K::kLog2E), whole);
  const V n = sum - whole;
  V r = fma(n, V::broadcast(-K::kLn2High), x);
  r = fma(n, V::broadcast(-K::kLn2Low), r);
  V q = V::broadcast(K::coefficient(K::kDegree));
  FASTRNN_UNROLL
  for (int i = K::kDegree - 1; i >= 0; --i) q = fma(q, r, V::broadcast(K::coefficient(i)));
  return {n, sum, fma(r * r, q, r)};
}

#ifdef FASTRNN_LINEAR_ACTIVATIONS
// A test build in which a long chain is linear, so that an error in it cannot be squashed
// (oneDNN's benchdnn checks its long sequences in this way).
template <class V>
FASTRNN_FN V sigmoid(V x) {
  return fma(x, V::broadcast(0.25f), V::broadcast(0.5f));
}

template <class V>
FASTRNN_FN V tanh(V x) {
  return x;
}
#else
// 1 / (1 + e^-x)
template <class V>
FASTRNN_FN V sigmoid(V x) {
  using K = ExpConstants<typename V::Real>;
  const V one = V::broadcast(1);
  const V z = min(V::broadcast(K::kMost), max(V::broadcast(K::kLeast), -x));
  const ExpParts<V> e = exp_parts(z);
  return one / (one + scale(one + e.p, e.n, e.sum));
}

// With e = exp(2|x|) - 1: tanh|x| = e / (e + 2), exact in sign and relative error near 0
template <class V>
FASTRNN_FN V tanh(V x) {
  using K = ExpConstants<typename V::Real>;
  const V y = min(V::broadcast(K::kTanhLimit), abs(x));
  const ExpParts<V> parts = exp_parts(y + y);
  const V power = V::power_of_two(parts.n, parts.sum);
  const V e = fma(power, parts.p, power - V::broadcast(1));
  return copy_sign(e / (e + V::broadcast(2)), x);
}
#endif

// derivatives in terms of the functions' values
#ifdef FASTRNN_LINEAR_ACTIVATIONS
template <class V>
FASTRNN_FN V sigmoid_slope(V) {
  return V::broadcast(0.25f);
}

template <class V>
FASTRNN_FN V tanh_slope(V) {
  return V::broadcast(1);
}
#else
template <class V>
FASTRNN_FN V sigmoid_slope(V y) {
  return fma(-y, y, y);
}

template <class V>
FASTRNN_FN V tanh_slope(V y) {
  return fma(-y, y, V::broadcast(1));
}
#endif

// max(x, 0) that lets NaN through
template <class V>
FASTRNN_FN V relu(V x) {
  return max(V::broadcast(0), x);
}
