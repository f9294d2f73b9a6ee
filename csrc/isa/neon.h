// AArch64 NEON: 32 registers of 128 bits. It has no masked loads; tails go through a small buffer.

template <class Real>
struct Vec;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr Index kLanes = 4;
  static constexpr int tile_rows(int n) { return n >= 4 ? 6 : 8; }
  static constexpr bool kTransposes = false;
  static constexpr bool kHalfPanels = false;

  float32x4_t v;

  FASTRNN_FN static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  FASTRNN_FN static Vec load(const float* p) { return {vld1q_f32(p)}; }
  FASTRNN_FN static Vec load(const Half* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
  }
  FASTRNN_FN static Vec load(const std::int8_t* p) {
    std::int32_t bytes;  // four at a time
    std::memcpy(&bytes, p, sizeof bytes);
    const int8x8_t wide = vreinterpret_s8_s32(vdup_n_s32(bytes));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(wide))))};
  }
  FASTRNN_FN static Vec load(const float* p, Index n) {
    if (n >= kLanes) return load(p);
    float lanes[kLanes] = {};
    for (Index i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  FASTRNN_FN void store(float* p) const { vst1q_f32(p, v); }
  FASTRNN_FN void stream(float* p) const { store(p); }
  FASTRNN_FN void store(float* p, Index n) const {
    if (n >= kLanes) return store(p);
    float lanes[kLanes];
    store(lanes);
    for (Index i = 0; i < n; ++i) p[i] = lanes[i];
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {vnegq_f32(a.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {vabsq_f32(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, a.v)};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {vbslq_f32(vcgtzq_f32(test.v), a.v, vdupq_n_f32(0))};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 127) {
    const int32x4_t biased = vaddq_s32(vreinterpretq_s32_f32(sum.v), vdupq_n_s32(bias));
    return {vreinterpretq_f32_s32(vshlq_n_s32(biased, 23))};
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

  float64x2_t v;

  FASTRNN_FN static Vec broadcast(double x) { return {vdupq_n_f64(x)}; }
  FASTRNN_FN static Vec load(const double* p) { return {vld1q_f64(p)}; }
  FASTRNN_FN static Vec load(const double* p, Index n) {
    return n >= kLanes ? load(p) : Vec{vsetq_lane_f64(*p, vdupq_n_f64(0), 0)};
  }
  FASTRNN_FN void store(double* p) const { vst1q_f64(p, v); }
  FASTRNN_FN void stream(double* p) const { store(p); }
  FASTRNN_FN void store(double* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      *p = vgetq_lane_f64(v, 0);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {vaddq_f64(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {vsubq_f64(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {vnegq_f64(a.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {vmulq_f64(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {vdivq_f64(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {vsqrtq_f64(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {vabsq_f64(a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {vbslq_f64(vdupq_n_u64(0x8000000000000000u), sign.v, a.v)};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {vbslq_f64(vcgtzq_f64(test.v), a.v, vdupq_n_f64(0))};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 1023) {
    const int64x2_t biased = vaddq_s64(vreinterpretq_s64_f64(sum.v), vdupq_n_s64(bias));
    return {vreinterpretq_f64_s64(vshlq_n_s64(biased, 52))};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) {
    return (a + a) * power_of_two(n, sum, 1022);
  }
};
