// One value at a time, for machines without a known vector unit and as the tests' yardstick: the
// same operations, so the same bits. std::fma is a library call where the hardware has none.

template <class Real_>
struct Vec {
  using Real = Real_;
  static constexpr Index kLanes = 1;
  // accumulators in the register tile: rows for a tile of n vectors
  static constexpr int tile_rows(int n) { return n >= 3 ? 2 : 4; }
  static constexpr bool kTransposes = false;
  static constexpr bool kHalfPanels = false;

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
  FASTRNN_FN friend Vec operator-(Vec a) { return {-a.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
#ifdef FASTRNN_UNFUSED
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#else
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {std::fma(a.v, b.v, c.v)}; }
#endif
  FASTRNN_FN friend Vec sqrt(Vec a) { return {std::sqrt(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {std::fabs(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) { return {std::copysign(a.v, sign.v)}; }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) { return {test.v > 0 ? a.v : Real(0)}; }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = kBias) {
    using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    Bits bits;
    std::memcpy(&bits, &sum.v, sizeof bits);
    bits = (bits + static_cast<Bits>(bias)) << (std::numeric_limits<Real>::digits - 1);
    std::memcpy(&sum.v, &bits, sizeof bits);
    return sum;
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) {
    return (a + a) * power_of_two(n, sum, kBias - 1);
  }

 private:
  static constexpr int kBias = std::numeric_limits<Real>::max_exponent - 1;
};
