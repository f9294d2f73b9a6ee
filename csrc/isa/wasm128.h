// WebAssembly's 128 bits. It names no registers; compilers of it have sixteen on x86-64, where a constant
// operand is not read from memory: tiles are small. Without a fused multiply-add (portability.h), and
// without masked loads: tails go through a small buffer.

template <class Real>
struct Vec;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr Index kLanes = 4;
  static constexpr int tile_rows(int n) { return n >= 3 ? 2 : n == 2 ? 4 : 8; }
  static constexpr bool kTransposes = false;
  static constexpr bool kHalfPanels = false;

  v128_t v;

  FASTRNN_FN static Vec broadcast(float x) { return {wasm_f32x4_splat(x)}; }
  FASTRNN_FN static Vec load(const float* p) { return {wasm_v128_load(p)}; }
  FASTRNN_FN static Vec load(const Half* p) { return {wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16)}; }
  FASTRNN_FN static Vec load(const std::int8_t* p) {  // four at a time
    const v128_t halves = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p));
    return {wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(halves))};
  }
  FASTRNN_FN static Vec load(const float* p, Index n) {
    if (n >= kLanes) return load(p);
    float lanes[kLanes] = {};
    for (Index i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  FASTRNN_FN void store(float* p) const { wasm_v128_store(p, v); }
  FASTRNN_FN void stream(float* p) const { store(p); }
  FASTRNN_FN void store(float* p, Index n) const {
    if (n >= kLanes) return store(p);
    float lanes[kLanes];
    store(lanes);
    for (Index i = 0; i < n; ++i) p[i] = lanes[i];
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {wasm_f32x4_add(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {wasm_f32x4_sub(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {wasm_f32x4_neg(a.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {wasm_f32x4_mul(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {wasm_f32x4_div(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {wasm_f32x4_sqrt(a.v)}; }
  // pmin(x, y) is y < x ? y : x
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {wasm_f32x4_pmin(b.v, a.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {wasm_f32x4_pmax(b.v, a.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {wasm_f32x4_abs(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {wasm_v128_bitselect(sign.v, a.v, wasm_f32x4_const_splat(-0.0f))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {wasm_v128_and(wasm_f32x4_gt(test.v, wasm_f32x4_const_splat(0)), a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 127) {
    return {wasm_i32x4_shl(wasm_i32x4_add(sum.v, wasm_i32x4_splat(bias)), 23)};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) { return (a + a) * power_of_two(n, sum, 126); }
};

template <>
struct Vec<double> {
  using Real = double;
  static constexpr Index kLanes = 2;
  static constexpr int tile_rows(int n) { return Vec<float>::tile_rows(n); }
  static constexpr bool kTransposes = false;
  static constexpr bool kHalfPanels = false;

  v128_t v;

  FASTRNN_FN static Vec broadcast(double x) { return {wasm_f64x2_splat(x)}; }
  FASTRNN_FN static Vec load(const double* p) { return {wasm_v128_load(p)}; }
  FASTRNN_FN static Vec load(const double* p, Index n) {
    return n >= kLanes ? load(p) : Vec{wasm_v128_load64_zero(p)};
  }
  FASTRNN_FN void store(double* p) const { wasm_v128_store(p, v); }
  FASTRNN_FN void stream(double* p) const { store(p); }
  FASTRNN_FN void store(double* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      wasm_v128_store64_lane(p, v, 0);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {wasm_f64x2_add(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {wasm_f64x2_sub(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {wasm_f64x2_neg(a.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {wasm_f64x2_mul(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {wasm_f64x2_div(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {wasm_f64x2_sqrt(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {wasm_f64x2_pmin(b.v, a.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {wasm_f64x2_pmax(b.v, a.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {wasm_f64x2_abs(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {wasm_v128_bitselect(sign.v, a.v, wasm_f64x2_const_splat(-0.0))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {wasm_v128_and(wasm_f64x2_gt(test.v, wasm_f64x2_const_splat(0)), a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 1023) {
    return {wasm_i64x2_shl(wasm_i64x2_add(sum.v, wasm_i64x2_splat(bias)), 52)};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) {
    return (a + a) * power_of_two(n, sum, 1022);
  }
};
