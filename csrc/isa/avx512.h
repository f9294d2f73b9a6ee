// AVX-512 F and DQ: 32 registers of 512 bits, a mask register for every tail.

template <class Real>
struct Vec;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr Index kLanes = 16;
  // 6 x 4 tile: 24 accumulators + 4 weights + 1 broadcast of 32 registers; 8 x 3: 24 + 3 + 1
  static constexpr int tile_rows(int n) { return n >= 4 ? 6 : 8; }

  __m512 v;

  FASTRNN_FN static __mmask16 mask(Index n) { return static_cast<__mmask16>((1u << n) - 1); }
  FASTRNN_FN static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  FASTRNN_FN static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  FASTRNN_FN static Vec load(const float* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm512_maskz_loadu_ps(mask(n), p)};
  }
  FASTRNN_FN void store(float* p) const { _mm512_storeu_ps(p, v); }
  FASTRNN_FN void store(float* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm512_mask_storeu_ps(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm512_or_ps(a.v, _mm512_and_ps(_mm512_set1_ps(-0.0f), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    const __mmask16 positive = _mm512_cmp_ps_mask(test.v, _mm512_setzero_ps(), _CMP_GT_OQ);
    return {_mm512_maskz_mov_ps(positive, a.v)};
  }
  FASTRNN_FN friend Vec round_even(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  FASTRNN_FN friend Vec scale_normal(Vec a, Vec n) { return scale(a, n); }
};

template <>
struct Vec<double> {
  using Real = double;
  static constexpr Index kLanes = 8;
  static constexpr int tile_rows(int n) { return Vec<float>::tile_rows(n); }

  __m512d v;

  FASTRNN_FN static __mmask8 mask(Index n) { return static_cast<__mmask8>((1u << n) - 1); }
  FASTRNN_FN static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  FASTRNN_FN static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  FASTRNN_FN static Vec load(const double* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm512_maskz_loadu_pd(mask(n), p)};
  }
  FASTRNN_FN void store(double* p) const { _mm512_storeu_pd(p, v); }
  FASTRNN_FN void store(double* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm512_mask_storeu_pd(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm512_andnot_pd(_mm512_set1_pd(-0.0), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm512_or_pd(a.v, _mm512_and_pd(_mm512_set1_pd(-0.0), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    const __mmask8 positive = _mm512_cmp_pd_mask(test.v, _mm512_setzero_pd(), _CMP_GT_OQ);
    return {_mm512_maskz_mov_pd(positive, a.v)};
  }
  FASTRNN_FN friend Vec round_even(Vec a) {
    return {_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n) { return {_mm512_scalef_pd(a.v, n.v)}; }
  FASTRNN_FN friend Vec scale_normal(Vec a, Vec n) { return scale(a, n); }
};
