// One value at a time, for machines without a known vector unit and as the tests' yardstick: the
// same operations, so the same bits. std::fma is a library call where the hardware has none.

template <class Real_>
struct Vec {
  using Real = Real_;
  static constexpr Index kLanes = 1;
  // accumulators in the register tile: rows for a tile of n vectors
  static constexpr int tile_rows(int n) { return n >= 3 ? 2 : 4; }
  static constexpr bool kTransposes = false;

  Real v;

  FASTRNN_FN static Vec broadcast(Real x) { return {x}; }
  FASTRNN_FN static Vec load(const Real* p) { return {*p}; }
  FASTRNN_FN static Vec load(const Real* p, Index) { return {*p}; }
  FASTRNN_FN static Vec load(const std::int8_t* p) { return {static_cast<Real>(*p)}; }
  FASTRNN_FN static Vec load(const Half* p) {
    const std::uint32_t bits = static_cast<std::uint32_t>(*p) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return {static_cast<Real>(value)};
  }
  FASTRNN_FN void store(Real* p) const { *p = v; }
  FASTRNN_FN void stream(Real* p) const { store(p); }
  FASTRNN_FN void store(Real* p, Index) const { *p = v; }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {std::fma(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {std::fabs(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) { return {std::copysign(a.v, sign.v)}; }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) { return {test.v > 0 ? a.v : Real(0)}; }
  FASTRNN_FN friend Vec round_even(Vec a) {
    // adding 1.5 * 2^(mantissa bits) leaves no room for a fraction; rint() would be a call
    constexpr Real magic = sizeof(Real) == 4 ? Real(0x1.8p23) : Real(0x1.8p52);
    return {(a.v + magic) - magic};
  }
  FASTRNN_FN friend Vec scale_normal(Vec a, Vec n) {
    using Bits = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
    constexpr int mantissa = sizeof(Real) == 4 ? 23 : 52, bias = sizeof(Real) == 4 ? 127 : 1023;
    // NaN has no integer: any will do, since a is NaN as well
    const Bits k = n.v == n.v ? static_cast<Bits>(n.v) : 0;
    const Bits bits = (k + bias) << mantissa;
    Real power;
    std::memcpy(&power, &bits, sizeof power);
    return {a.v * power};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n) {
    // in two steps, each a normal power of two, since n may lie outside the exponent's range
    const Vec half = round_even(n * broadcast(Real(0.5)));
    return scale_normal(scale_normal(a, half), n - half);
  }
};
