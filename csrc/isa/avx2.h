// AVX2 with FMA: 16 registers of 256 bits.

// mask of the first n lanes of 32 bits: kMask + 8 - n
alignas(32) constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                0,  0,  0,  0,  0,  0,  0,  0};

template <class Real>
struct Vec;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr Index kLanes = 8;
  // 12 accumulators of the 16 registers: 6 x 2 for weights, which lie in half panels, since it reads
  // half as many of them for a multiplication as 3 x 4, which columns take
  static constexpr int tile_rows(int n) { return n >= 4 ? 3 : n == 3 ? 4 : n == 2 ? 6 : 8; }
  static constexpr bool kTransposes = true;
  static constexpr bool kHalfPanels = true;

  __m256 v;

  FASTRNN_FN static __m256i mask(Index n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
  }
  FASTRNN_FN static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  FASTRNN_FN static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  FASTRNN_FN static Vec load(const Half* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
  }
  FASTRNN_FN static Vec load(const std::int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
  }
  FASTRNN_FN static Vec load(const float* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm256_maskload_ps(p, mask(n))};
  }
  FASTRNN_FN void store(float* p) const { _mm256_storeu_ps(p, v); }
  FASTRNN_FN void stream(float* p) const { _mm256_stream_ps(p, v); }
  FASTRNN_FN void store(float* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm256_maskstore_ps(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {-a.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm256_or_ps(a.v, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {_mm256_and_ps(_mm256_cmp_ps(test.v, _mm256_setzero_ps(), _CMP_GT_OQ), a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 127) {
    const __m256i biased = _mm256_add_epi32(_mm256_castps_si256(sum.v), _mm256_set1_epi32(bias));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) { return (a + a) * power_of_two(n, sum, 126); }

  // a[i] lane j to a[j] lane i
  FASTRNN_FN static void transpose(Vec (&a)[kLanes]) {
    __m256 b[kLanes];
    FASTRNN_UNROLL
    for (int i = 0; i < kLanes; i += 2) {
      b[i] = _mm256_unpacklo_ps(a[i].v, a[i + 1].v);
      b[i + 1] = _mm256_unpackhi_ps(a[i].v, a[i + 1].v);
    }
    FASTRNN_UNROLL
    for (int i = 0; i < kLanes; i += 4) {
      a[i].v = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
      a[i + 1].v = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
      a[i + 2].v = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
      a[i + 3].v = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
    // four lanes in a row are those of four neighbouring a
    FASTRNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m256 low = a[i].v, high = a[i + 4].v;
      a[i].v = _mm256_permute2f128_ps(low, high, 0x20);
      a[i + 4].v = _mm256_permute2f128_ps(low, high, 0x31);
    }
  }
};

template <>
struct Vec<double> {
  using Real = double;
  static constexpr Index kLanes = 4;
  static constexpr int tile_rows(int n) { return Vec<float>::tile_rows(n); }
  static constexpr bool kTransposes = true;
  static constexpr bool kHalfPanels = true;

  __m256d v;

  FASTRNN_FN static __m256i mask(Index n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - 2 * n));
  }
  FASTRNN_FN static Vec broadcast(double x) { return {_mm256_set1_pd(x)}; }
  FASTRNN_FN static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  FASTRNN_FN static Vec load(const double* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm256_maskload_pd(p, mask(n))};
  }
  FASTRNN_FN void store(double* p) const { _mm256_storeu_pd(p, v); }
  FASTRNN_FN void stream(double* p) const { _mm256_stream_pd(p, v); }
  FASTRNN_FN void store(double* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm256_maskstore_pd(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {-a.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {_mm256_sqrt_pd(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm256_min_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm256_or_pd(a.v, _mm256_and_pd(_mm256_set1_pd(-0.0), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    return {_mm256_and_pd(_mm256_cmp_pd(test.v, _mm256_setzero_pd(), _CMP_GT_OQ), a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec, Vec sum, int bias = 1023) {
    const __m256i biased = _mm256_add_epi64(_mm256_castpd_si256(sum.v), _mm256_set1_epi64x(bias));
    return {_mm256_castsi256_pd(_mm256_slli_epi64(biased, 52))};
  }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec sum) {
    return (a + a) * power_of_two(n, sum, 1022);
  }

  // a[i] lane j to a[j] lane i
  FASTRNN_FN static void transpose(Vec (&a)[kLanes]) {
    const __m256d low_even = _mm256_unpacklo_pd(a[0].v, a[1].v);
    const __m256d low_odd = _mm256_unpackhi_pd(a[0].v, a[1].v);
    const __m256d high_even = _mm256_unpacklo_pd(a[2].v, a[3].v);
    const __m256d high_odd = _mm256_unpackhi_pd(a[2].v, a[3].v);
    a[0].v = _mm256_permute2f128_pd(low_even, high_even, 0x20);
    a[1].v = _mm256_permute2f128_pd(low_odd, high_odd, 0x20);
    a[2].v = _mm256_permute2f128_pd(low_even, high_even, 0x31);
    a[3].v = _mm256_permute2f128_pd(low_odd, high_odd, 0x31);
  }
};
